"""Depth minus width (the paper's Fig. 3), with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.reports.chart import Chart, Panel, Point, Series
from prunelab.reports.columns import Column, number

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks import Benchmark
    from prunelab.reports.grid import ReportCut, Study
    from prunelab.studies.run import Measured
    from prunelab.studies.store import Measurement

Z = 1.959963984540054
STEPS = 3


@dataclass(frozen=True)
class DepthMinusWidth:
    """What depth has over width of the same size, on one benchmark.

    Attributes:
        depth: the depth cut.
        width: the width cut.
        column: which figure.
        difference: in percentage points; of perplexities, in their natural logarithm.
        interval: 95 %.
        paired: whether it is of the same samples' paired test; else of both standard errors.
    """

    depth: ReportCut
    width: ReportCut
    column: Column
    difference: float
    interval: tuple[float, float] | None
    paired: bool


def depth_minus_width(study: Study) -> list[DepthMinusWidth]:
    """Every ratio's depth cut against its width cut, neither of them a baseline.

    Paired on the same samples where both have records; else from the two standard errors as if the samples were
    others, which is the wider interval. Cuts with several seeds are not compared.
    """
    grid = study.grid
    measured = {_key(one.primary): one for one in study.run.measured}
    found = []
    for depth in grid.sorted_cuts:
        for width in grid.of_model(depth.model):
            if (depth.strategy, width.strategy) != ("depth", "width") or depth.ratio != width.ratio:
                continue
            if depth.is_baseline or width.is_baseline:
                continue
            for column in grid.columns_of(depth.model):
                if not column.is_timing:
                    one = _compared(study, measured, depth, width, column)
                    found += [one] if one else []
    return found


def difference_chart(found: list[DepthMinusWidth], study: Study) -> Chart | None:
    """One panel a model, benchmarks down; the ratios side by side."""
    panels = []
    for model in study.grid.models:
        for unit, own in _by_unit([d for d in found if d.depth.model == model]).items():
            columns = list(dict.fromkeys(d.column for d in own))
            ratios = sorted({d.depth.ratio for d in own})
            series = tuple(
                Series(
                    f"{ratio:.0%}",
                    f"step{min(index, STEPS - 1)}",
                    tuple(_point(d, columns, index, len(ratios)) for d in own if d.depth.ratio == ratio),
                    ("circle", "square", "diamond")[index % 3],
                    line=False,
                )
                for index, ratio in enumerate(ratios)
            )
            names = tuple(column.title for column in columns)
            title = f"{model}: {'perplexities' if columns[0].is_perplexity else 'shares and scores'}"
            panels.append(Panel(title, model, series, unit, categories=names))
    caption = (
        "The paper's Fig. 3. Of perplexities lower is better, so that there the sides are the other way round. Bars "
        "are 95 % intervals, paired on the same samples where there are records; one across the line says nothing."
    )
    return Chart("depth_minus_width", "Depth minus width", caption, tuple(panels), wide=True) if panels else None


def _by_unit(found: list[DepthMinusWidth]) -> dict[str, list[DepthMinusWidth]]:
    units: dict[str, list[DepthMinusWidth]] = {}
    for one in found:
        unit = (
            "← depth ahead · difference of ln perplexity · width ahead →"
            if one.column.is_perplexity
            else "← width ahead · difference, percentage points · depth ahead →"
        )
        units.setdefault(unit, []).append(one)
    return units


def _point(d: DepthMinusWidth, columns: list[Column], index: int, ratios: int) -> Point:
    y = columns.index(d.column) + (index - (ratios - 1) / 2) * min(0.22, 0.8 / ratios)
    low, high = d.interval if d.interval else (None, None)
    spread = "" if d.interval is None else f", 95 % interval {number(d.interval[0], 3)} to {number(d.interval[1], 3)}"
    how = "paired" if d.paired else "from both standard errors"
    names = f"{d.depth.method} minus {d.width.method} at {d.depth.ratio:.0%}"
    tip = f"{d.depth.model}, {d.column.title}: {names} {number(d.difference, 3)}{spread} ({how})"
    return Point(d.difference, y, low, high, tip)


def _key(m: Measurement) -> tuple[object, ...]:
    return m.model, m.method, m.ratio, m.seed, Column.of(m)


def _compared(
    study: Study, measured: Mapping[tuple[object, ...], Measured], depth: ReportCut, width: ReportCut, column: Column
) -> DepthMinusWidth | None:
    entries = [study.grid.entry(cut, column) for cut in (depth, width)]
    if not all(entry and len(entry.measurements) == 1 for entry in entries):
        return None
    d, w = (entry.measurements[0] for entry in entries if entry)
    paired = _paired(column.known, measured[_key(w)], measured[_key(d)], column)
    if paired is not None:
        return DepthMinusWidth(depth, width, column, *paired, paired=True)
    scale = 1.0 if column.is_bias else 100.0
    values, errors = [d.value, w.value], [d.standard_error, w.standard_error]
    if column.is_perplexity:
        errors = [None if e is None else e / v for e, v in zip(errors, values, strict=True)]
        values, scale = [math.log(v) for v in values], 1.0
    difference = scale * (values[0] - values[1])
    half = None if None in errors else scale * Z * math.hypot(*(e for e in errors if e is not None))
    interval = None if half is None else (difference - half, difference + half)
    return DepthMinusWidth(depth, width, column, difference, interval, paired=False)


def _paired(
    benchmark: Benchmark | None, width: Measured, depth: Measured, column: Column
) -> tuple[float, tuple[float, float] | None] | None:
    """The benchmark's own test; perplexities are compared as logarithms, for which it has none."""
    if benchmark is None or column.is_perplexity or width.samples is None or depth.samples is None:
        return None
    comparison = benchmark.compare(width.samples, depth.samples)
    if comparison is None:
        return None
    scale = 1.0 if column.is_bias else 100.0
    low, high = (scale * limit for limit in comparison.interval)
    finite = math.isfinite(low) and math.isfinite(high)
    return scale * comparison.difference, (low, high) if finite else None
