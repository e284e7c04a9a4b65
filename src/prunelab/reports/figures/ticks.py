"""Limits and tick positions of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.reports.chart import Panel

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round numbers from `low` to `high`."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * s for s in STEPS if span / (power * s) <= about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


def limits(panel: Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    """The limits of both axes: all points, error bars and levels, plus a margin."""
    points = [p for line in panel.series for p in line.points]
    xs, ys = [p.x for p in points], [p.y for p in points]
    bars = [b for p in points for b in (p.low, p.high) if b is not None]
    if panel.categories:
        x = _with_margin([*xs, *bars, 0.0], 0.06)
        return x, (-0.6, len(panel.categories) - 0.4)
    return _with_margin(xs, 0.05), _with_margin([*ys, *bars, *(level.y for level in panel.levels)], 0.08)


def _with_margin(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = share * (high - low) or max(abs(high) * share, 0.5)
    return low - margin, high + margin
