"""Which way a model goes under a budget of memory: whole, or block by block from the disk."""

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
    """Bytes in `8GB` or `7.5 GiB`; None where nothing is given.

    Args:
        text: the amount.
        called: what the error calls it.

    Raises:
        InvalidRequest: it is no amount of memory.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    size = int(float(found[1]) * UNITS.get(found[2].upper(), 0)) if found else 0
    if not size:
        raise InvalidRequest(f"{called} {text} is no amount of memory: give one such as 8GB, 500MB or 7.5GiB")
    return size


def format_bytes(size: float) -> str:
    """Bytes for people."""
    number, unit = (size / 1e9, "GB") if size >= 999.5e6 else (size / 1e6, "MB")
    return f"{number:.0f} {unit}" if number >= 999.5 else f"{number:.3g} {unit}"


def free_memory(device: torch.device) -> int:
    """Bytes that are to be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def held() -> int:
    """Bytes that this process has in memory already, its libraries for the most part."""
    return int(psutil.Process().memory_info().rss)


def is_too_large(weight_bytes: int, budget: int) -> bool:
    """Whether a model cannot be pruned in memory: a width cut holds the model and a copy of what is left of it."""
    return 2 * weight_bytes > budget


MOMENTS_SHARE = 0.25
"""How much of the memory that is left the second moments of all output projections may take."""


def moments_bytes(shapes: Sequence[BlockShape]) -> int:
    """What the second moments of all output projections' inputs take, in float64."""
    widths = [width for s in shapes for width in (s.channels, s.units("query") * s.rows("query"))]
    return 8 * sum(width**2 for width in widths)


@dataclass(frozen=True)
class Eyes:
    """What a model that sees has in memory before its blocks run.

    Attributes:
        weights: bytes of vision encoder, connector and embedding together.
        a_sample: bytes that the encoder makes of one sample's images.
    """

    weights: int
    a_sample: int


@dataclass(frozen=True)
class StreamingPlan:
    """How to calibrate block by block.

    Attributes:
        in_memory: hidden states are kept in memory as well as on disk.
        tokens_a_batch: tokens that go through a block at once.
        need: bytes that the process will hold at its peak, as estimated.
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
    """The fastest way that keeps to a budget.

    Hidden states stay in memory where they fit; batches are only made smaller where nothing else helps, since sums over
    other batches differ by rounding.

    Args:
        shapes: the blocks' widths.
        itemsize: bytes of a weight.
        vocabulary: rows of the embedding.
        samples: of the calibration.
        sequence_length: tokens a sample.
        tokens_a_batch: the usual ones.
        budget: bytes.
        already: bytes of them that the process holds before it begins.
        eyes: of samples with images, what they take; None for text.

    Raises:
        InvalidRequest: not even one sample at a time fits.
    """
    block = max(shape.cost for shape in shapes) * itemsize
    hidden = shapes[0].hidden
    eyes = eyes or Eyes(vocabulary * hidden * itemsize, 0)
    states = samples * sequence_length * hidden * itemsize
    widest = max(max(shape.channels, shape.units("query") * shape.rows("query"), hidden) for shape in shapes)
    # What a block makes of a token: about eight states, three intermediates; three of the widest in float32 for sums.
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
