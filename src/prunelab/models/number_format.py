"""The default number format of a model."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

from prunelab.errors import CheckpointError
from prunelab.io.lazy import torch

POSSIBLE = ("float32", "bfloat16", "float16", "float64")


def number_format_of(config: Any, stored: Iterable[torch.dtype], called: str) -> tuple[torch.dtype, bool]:
    """The number format in the configuration, else that of the weights; and whether the configuration names one.

    Weights in several formats get the narrowest format that represents all of them.

    Args:
        config: the configuration; its `dtype` is read.
        stored: number formats of the stored weights.
        called: the model's name in error messages.

    Raises:
        CheckpointError: the configuration names a format that models cannot compute in.
    """
    named = getattr(config, "dtype", None)
    if named is not None:
        chosen = getattr(torch, named, None) if isinstance(named, str) else named
        if not isinstance(chosen, torch.dtype) or words(chosen) not in POSSIBLE:
            known = ", ".join(POSSIBLE)
            raise CheckpointError(
                f"{called}: dtype in config.json is {named!s:.40}, which is not a number format of weights: write one "
                f"of {known}"
            )
        return chosen, True
    formats = {dtype for dtype in stored if dtype.is_floating_point}
    return reduce(torch.promote_types, sorted(formats, key=str)) if formats else torch.float32, False


def words(dtype: torch.dtype) -> str:
    """A number format's name, such as `bfloat16`."""
    return str(dtype).removeprefix("torch.")
