"""Ascending numbers as ranges: `[0, 1, 2, 5]` is `"0-2,5"`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MOST_UNITS = 1 << 20
"""Largest number of units of one kind in a block (Llama-3.1-405B has 53,248 MLP channels)."""
MOST_BLOCKS = 10_000
"""Largest number of blocks of a model."""
_RANGES = re.compile(r"(?:\d{1,7}(?:-\d{1,7})?(?:,(?=.)|\Z))*", re.ASCII | re.DOTALL)


def to_ranges(units: Sequence[int]) -> str:
    """Write ascending indices as ranges."""
    pieces: list[str] = []
    start = previous = None
    for unit in [*units, None]:
        if previous is not None and unit != previous + 1:
            pieces.append(f"{start}" if start == previous else f"{start}-{previous}")
            start = unit
        elif start is None:
            start = unit
        previous = unit
    return ",".join(pieces)


def edges_of(text: str) -> list[tuple[int, int]]:
    """The first and last number of every range, without expanding the ranges.

    Raises:
        ValueError: the text is not a list of ascending ranges below `MOST_UNITS`.
    """
    if _RANGES.fullmatch(text) is None:
        raise ValueError(f"{_shortened(text)} is not a list of ranges: give one such as '0-2,5'")
    edges, previous = [], -1
    for piece in filter(None, text.split(",")):
        first, _, last = piece.partition("-")
        low, high = int(first), int(last or first)
        if not previous < low <= high < MOST_UNITS:
            raise ValueError(f"{_shortened(text)}: ranges must ascend and stay below {MOST_UNITS:,}")
        edges.append((low, high))
        previous = high
    return edges


def blocks_in(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The blocks in each text; all texts must cover the blocks from 0 on, each exactly once.

    Raises:
        ValueError: they do not, or there are more than `MOST_BLOCKS`.
    """
    if sum(map(count_in, texts)) > MOST_BLOCKS:
        raise ValueError(f"more than {MOST_BLOCKS:,} blocks are listed")
    named = list(map(spelled_out, texts))
    numbers = sorted(block for blocks in named for block in blocks)
    if numbers != list(range(len(numbers))):
        raise ValueError("every block from 0 on must have exactly one shape")
    return named


def count_in(text: str) -> int:
    """Number of units in the ranges; raises as `edges_of`."""
    return sum(high - low + 1 for low, high in edges_of(text))


def spelled_out(text: str) -> tuple[int, ...]:
    """Inverse of `to_ranges`; raises as `edges_of`."""
    return tuple(unit for low, high in edges_of(text) for unit in range(low, high + 1))


def from_ranges(value: Any) -> Any:
    """As `spelled_out` for text; other values are returned unchanged for validation to reject."""
    return spelled_out(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
