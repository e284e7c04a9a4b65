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
    """The difference between depth and width pruning at matched size, on one benchmark.

    Attributes:
        depth: the depth cut.
        width: the width cut.
        column: the benchmark's column.
        difference: depth minus width, in percentage points; for perplexities, in natural logarithms.
        interval: 95 % interval of the difference.
        paired: whether the interval is from a paired test on the same samples; else from both standard errors.
    """

    depth: ReportCut
    width: ReportCut
    column: Column
    difference: float
    interval: tuple[float, float] | None
    paired: bool


def depth_minus_width(study: Study) -> list[DepthMinusWidth]:
    """Compare depth and width cuts of the same ratio, without baselines.

    The comparison is paired if both cuts have sample records; else the interval is from the two standard errors as if
    the samples were independent, which makes it wider. Cuts with several seeds are not compared.
    """
    grid = study.grid
    measured = {_key(difference.primary): difference for difference in study.run.measured}
    differences = []
    for depth in grid.sorted_cuts:
        for width in grid.of_model(depth.model):
            if (depth.strategy, width.strategy) != ("depth", "width") or depth.ratio != width.ratio:
                continue
            if depth.is_baseline or width.is_baseline:
                continue
            for column in grid.columns_of(depth.model):
                if not column.is_timing:
                    difference = _compared(study, measured, depth, width, column)
                    differences += [difference] if difference else []
    return differences


def difference_chart(differences: list[DepthMinusWidth], study: Study) -> Chart | None:
    """One panel per model, with benchmarks in rows and the ratios side by side."""
    panels = []
    for model in study.grid.models:
        for unit, selected in _by_unit([d for d in differences if d.depth.model == model]).items():
            columns = list(dict.fromkeys(d.column for d in selected))
            ratios = sorted({d.depth.ratio for d in selected})
            series = tuple(
                Series(
                    f"{ratio:.0%}",
                    f"step{min(index, STEPS - 1)}",
                    tuple(_point(d, columns, index, len(ratios)) for d in selected if d.depth.ratio == ratio),
                    ("circle", "square", "diamond")[index % 3],
                    line=False,
                )
                for index, ratio in enumerate(ratios)
            )
            names = tuple(column.title for column in columns)
            title = f"{model}: {'perplexities' if columns[0].is_perplexity else 'shares and scores'}"
            panels.append(Panel(title, model, series, unit, categories=names))
    caption = (
        "As the paper's Fig. 3. For perplexities, lower is better, so the sides are swapped. Bars are 95 % intervals, "
        "paired on the same samples if records exist; a difference whose bar crosses zero is not significant."
    )
    return Chart("depth_minus_width", "Depth minus width", caption, tuple(panels), wide=True) if panels else None


def _by_unit(differences: list[DepthMinusWidth]) -> dict[str, list[DepthMinusWidth]]:
    units: dict[str, list[DepthMinusWidth]] = {}
    for difference in differences:
        unit = (
            "← depth ahead · difference of ln perplexity · width ahead →"
            if difference.column.is_perplexity
            else "← width ahead · difference, percentage points · depth ahead →"
        )
        units.setdefault(unit, []).append(difference)
    return units


def _point(d: DepthMinusWidth, columns: list[Column], index: int, ratios: int) -> Point:
    y = columns.index(d.column) + (index - (ratios - 1) / 2) * min(0.22, 0.8 / ratios)
    low, high = d.interval if d.interval else (None, None)
    spread = "" if d.interval is None else f", 95 % interval {number(d.interval[0], 3)} to {number(d.interval[1], 3)}"
    how = "paired" if d.paired else "unpaired"
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
    """The benchmark's paired test; None for perplexities, which are compared as logarithms."""
    if benchmark is None or column.is_perplexity or width.samples is None or depth.samples is None:
        return None
    comparison = benchmark.compare(width.samples, depth.samples)
    if comparison is None:
        return None
    scale = 1.0 if column.is_bias else 100.0
    low, high = (scale * limit for limit in comparison.interval)
    finite = math.isfinite(low) and math.isfinite(high)
    return scale * comparison.difference, (low, high) if finite else None
