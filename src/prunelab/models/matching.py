"""Stored tensors against the tensors that the model has, by the names that transformers itself would give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.models.names import is_harmless

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from prunelab.models.tensor_files import StoredTensor


@dataclass(frozen=True)
class Match:
    """Which stored tensor is which of the model's.

    Attributes:
        sources: stored names by the model's names.
        missing: names of the model for which nothing is stored, tied ones aside.
        left_over: stored names that are none of the model's.
        harmless: stored names that are none of the model's and change nothing.
        doubled: a name of the model for which two tensors are stored, and their names.
        reshaped: names of the model whose stored tensor has another shape.
        integers: names of the model whose stored tensor holds no floating-point numbers.
        tied: the model's names, each with the name that it is tied to by the configuration.
    """

    sources: Mapping[str, str]
    missing: list[str]
    left_over: list[str]
    harmless: list[str]
    doubled: list[tuple[str, str, str]]
    reshaped: list[str]
    integers: list[str]
    tied: Mapping[str, str]


class Renaming:
    """The names that transformers gives stored tensors on loading.

    Args:
        model: without values.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        self.renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        self.converters = [one for one in transforms if isinstance(one, WeightConverter)]
        self.prefix = model.base_model_prefix
        self.expected: dict[str, torch.Tensor] = model.state_dict()

    def target(self, name: str) -> str:
        """What a stored tensor is called on loading, whether the model has such a tensor or not."""
        from transformers.core_model_loading import rename_source_key

        renamed: str
        renamed, _ = rename_source_key(name, self.renamings, self.converters, self.prefix, self.expected)
        if renamed not in self.expected and name in self.expected:
            renamed, _ = rename_source_key(name, [], [], self.prefix, self.expected)
        return renamed

    def of(self, name: str) -> str | None:
        """The model's name of a stored tensor; None where it has none."""
        target = self.target(name)
        return target if target in self.expected else None


def match(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> Match:
    """Compare a checkpoint's tensors with its model's.

    Args:
        model: without values.
        stored: the checkpoint's tensors by name.
    """
    renaming = Renaming(model)
    sources: dict[str, str] = {}
    doubled, unknown = [], []
    for name in stored:
        target = renaming.of(name)
        if target is None:
            unknown.append(name)
        elif target in sources:
            doubled.append((target, sources[target], name))
        else:
            sources[target] = name
    tied = dict(model.all_tied_weights_keys)
    held = {partner for pair in tied.items() if any(one in sources for one in pair) for partner in pair}
    ignored = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ["(?!)"]))
    harmless = [name for name in unknown if is_harmless(name) or ignored.search(name)]
    fitting = {name: stored[source] for name, source in sources.items()}
    return Match(
        sources=sources,
        missing=[name for name in renaming.expected if name not in sources and name not in held],
        left_over=[name for name in unknown if name not in harmless],
        harmless=harmless,
        doubled=doubled,
        reshaped=[name for name, one in fitting.items() if one.shape != tuple(renaming.expected[name].shape)],
        integers=[
            name
            for name, one in fitting.items()
            if renaming.expected[name].is_floating_point() and not one.dtype.is_floating_point
        ],
        tied=tied,
    )
