"""Memory budgets: whether a model is processed in memory or block by block from the disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import psutil, torch

if TYPE_CHECKING:
    from prunelab.models.families import BlockShape

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_memory(text: str | None, called: str = "--memory") -> int | None:
    """Parse an amount of memory such as `8GB` or `7.5 GiB` into bytes; None stays None.

    Args:
        text: the amount.
        called: name of the option in the error message.

    Raises:
        InvalidRequest: the text is not an amount of memory.
    """
    if text is None:
        return None
    parsed = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    size = int(float(parsed[1]) * UNITS.get(parsed[2].upper(), 0)) if parsed else 0
    if not size:
        raise InvalidRequest(f"{called} {text} is not an amount of memory: give one such as 8GB, 500MB or 7.5GiB")
    return size


def format_bytes(size: float) -> str:
    """A number of bytes as text, such as `8.03 GB`."""
    number, unit = (size / 1e9, "GB") if size >= 999.5e6 else (size / 1e6, "MB")
    return f"{number:.0f} {unit}" if number >= 999.5 else f"{number:.3g} {unit}"


def free_memory(device: torch.device) -> int:
    """Free memory of a device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def held() -> int:
    """Resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def is_too_large(weight_bytes: int, budget: int) -> bool:
    """Whether a model is too large to be pruned in memory: width pruning holds the dense and the pruned model."""
    return 2 * weight_bytes > budget


MOMENTS_SHARE = 0.25
"""The largest share of free memory for the second moments of all output projections."""


def moments_bytes(shapes: Sequence[BlockShape]) -> int:
    """Size of the second moments of all output projections' inputs in float64, in bytes."""
    widths = [width for s in shapes for width in (s.channels, s.units("query") * s.rows("query"))]
    return 8 * sum(width**2 for width in widths)


@dataclass(frozen=True)
class Eyes:
    """Memory of a vision-language model before its blocks run.

    Attributes:
        weights: bytes of vision encoder, connector and embedding together.
        a_sample: bytes of the encoder's activations for the images of one sample.
    """

    weights: int
    a_sample: int


@dataclass(frozen=True)
class StreamingPlan:
    """Settings of block-by-block calibration.

    Attributes:
        in_memory: whether hidden states are kept in memory as well as on disk.
        tokens_a_batch: tokens in a batch.
        need: estimated peak memory of the process, in bytes.
    """

    in_memory: bool
    tokens_a_batch: int
    need: int


def plan_streaming(
    shapes: Sequence[BlockShape],
    *,
    itemsize: int,
    vocabulary: int,
    samples: int,
    sequence_length: int,
    tokens_a_batch: int,
    budget: int,
    already: int,
    eyes: Eyes | None = None,
) -> StreamingPlan:
    """Choose the fastest settings of block-by-block calibration within a memory budget.

    Hidden states stay in memory if they fit. Batches shrink only as the last resort, because sums over other batches
    differ by rounding.

    Args:
        shapes: the blocks' widths.
        itemsize: bytes of a weight.
        vocabulary: rows of the embedding.
        samples: calibration samples.
        sequence_length: tokens a sample.
        tokens_a_batch: the preferred batch size, in tokens.
        budget: memory budget of the process, in bytes.
        already: memory that the process holds before the calibration, in bytes.
        eyes: memory of the vision encoder, for samples with images; None for text.

    Raises:
        InvalidRequest: the budget does not hold one block and one sample; names the smallest sufficient budget.
    """
    block = max(shape.cost for shape in shapes) * itemsize
    hidden = shapes[0].hidden
    eyes = eyes or Eyes(vocabulary * hidden * itemsize, 0)
    states = samples * sequence_length * hidden * itemsize
    widest = max(max(shape.channels, shape.units("query") * shape.rows("query"), hidden) for shape in shapes)
    # Activations a token: about eight hidden states, three intermediates, and three of the widest in float32 for sums.
    a_token = itemsize * (8 * hidden + 3 * widest) + 3 * 4 * widest
    least = sequence_length
    usual = max(tokens_a_batch // sequence_length, 1) * sequence_length
    for in_memory, batch in ((True, usual), (False, usual), (False, least)):
        ahead = eyes.weights + batch // sequence_length * eyes.a_sample
        need = already + max(block + batch * a_token, ahead) + states * in_memory
        if need <= budget:
            return StreamingPlan(in_memory, batch, need)
    raise InvalidRequest(
        f"a memory of {format_bytes(budget)} does not hold one block and one sample: give --memory "
        f"{format_bytes(need * 1.05).replace(' ', '')} or more, or a smaller --sequence-length"
    )
