"""Figures by ratio: accuracy (the paper's Fig. 1 and 6), pass@1 (Fig. 2), ln perplexity (Fig. 4), and retention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from prunelab.reports.chart import Chart, Level, Panel, Point, Series
from prunelab.reports.columns import Column, marker_of, number, series_name
from prunelab.reports.grid import Entry, Grid, ReportCut
from prunelab.reports.retention import judging, mean_quality

REMOVED = "removed share of block weights, %"
BARS = (
    "Error bars: one standard error; for random methods, the standard deviation over seeds. Hollow points: not "
    "significantly different from the dense model (paired test, Holm-adjusted p ≥ 0.05)."
)


def accuracy_by_ratio(grid: Grid) -> Chart | None:
    """Accuracies, one panel per model and benchmark, with the level of chance."""
    panels = _panels(grid, lambda c: c.is_quality and not c.is_perplexity and c.metric not in ("pass@1",))
    caption = f"As the paper's Fig. 1 and 6. Dotted: chance. Dashed: baselines. {BARS}"
    return Chart("accuracy_by_ratio", "Accuracy by ratio", caption, panels) if panels else None


def pass_at_1(grid: Grid) -> Chart | None:
    """HumanEval's pass@1."""
    panels = _panels(grid, lambda c: c.metric == "pass@1")
    return Chart("pass_at_1", "pass@1", f"As the paper's Fig. 2. {BARS}", panels) if panels else None


def ln_perplexity(grid: Grid) -> Chart | None:
    """Perplexities on a natural logarithmic scale."""
    panels = _panels(grid, lambda c: c.is_perplexity)
    caption = f"As the paper's Fig. 4, in natural logarithms: one unit is a factor of 2.7. Lower is better. {BARS}"
    return Chart("ln_perplexity", "ln perplexity", caption, panels) if panels else None


def quality_by_ratio(grid: Grid) -> Chart | None:
    """The mean retention of every cut, one panel per model."""
    panels = []
    for model in grid.models:
        columns = judging(grid, model)
        if not columns:
            continue

        def value(cut: ReportCut) -> Point | None:
            quality = mean_quality(grid, cut)
            x = 100 * grid.achieved(cut)
            tip = f"{cut.model}, {cut.label}: {quality or 0:.0%} of the quality retained"
            return None if quality is None else Point(x, 100 * quality, tip=tip)

        series = _series(grid, model, value)
        if series:
            panels.append(Panel(model, model, series, REMOVED, "quality retained, %"))
    caption = (
        "Mean over benchmarks of the share of the dense model's result that is retained: accuracies above chance, "
        "pass@1 and instructions followed as ratios, perplexities as dense / pruned. Excluded are benchmarks on which "
        "the dense model does not beat chance by two standard errors, speed, and StereoSet. With several numbers of "
        "shots, the benchmark's default counts."
    )
    return Chart("quality_by_ratio", "Quality retained", caption, tuple(panels)) if panels else None


def _panels(grid: Grid, wanted: Callable[[Column], bool]) -> tuple[Panel, ...]:
    return tuple(
        _panel(grid, model, column) for model in grid.models for column in grid.columns_of(model) if wanted(column)
    )


def _panel(grid: Grid, model: str, column: Column) -> Panel:
    scale = 1.0 if column.is_perplexity else 100.0

    def value(cut: ReportCut) -> Point | None:
        entry = grid.entry(cut, column)
        return _point(cut, entry, column, 100 * grid.achieved(cut), scale) if entry else None

    chance = grid.chance(model, column)
    levels = (Level("chance", scale * chance),) if chance is not None else ()
    y_label = "ln perplexity" if column.is_perplexity else f"{column.metric_name}, %"
    series = _series(grid, model, value)
    return Panel(f"{model}: {column.title}", model, series, REMOVED, y_label, levels)


def _point(cut: ReportCut, entry: Entry, column: Column, x: float, scale: float) -> Point:
    """The result with its error bar; for a perplexity, its logarithm with the relative error."""
    value, error = entry.value, entry.error
    spread = "" if error is None else f" ± {number(error, 2)}"
    tip = f"{cut.model}, {cut.label} (removed {x:.1f} %): {column.title} {column.text(value)}{spread}"
    if column.is_perplexity:
        value, error = math.log(value), None if error is None else error / value
    y = scale * value
    low, high = (None, None) if error is None else (y - scale * error, y + scale * error)
    tested = len(entry.measurements) == 1 and bool(entry.differences)
    return Point(x, y, low, high, tip, hollow=tested and not entry.is_seen)


def _series(grid: Grid, model: str, value: Callable[[ReportCut], Point | None]) -> tuple[Series, ...]:
    """One series per method, each starting at the dense model."""
    dense = ReportCut(model, "dense", 0.0)
    start = value(dense) if dense in grid.cuts else None
    cuts = grid.of_model(model, dense=False)
    series: list[Series] = []
    for method in methods_in_order(cuts):
        points_of_method = [point for cut in cuts if cut.method == method and (point := value(cut)) is not None]
        points = sorted(points_of_method, key=lambda point: point.x)
        first = next(cut for cut in cuts if cut.method == method)
        if points:
            line = ([start] if start else []) + points
            series.append(
                Series(series_name(method), first.strategy, tuple(line), marker_of(method), dashed=first.is_baseline)
            )
    if not series and start:
        series.append(Series("dense", "dense", (start,)))
    return tuple(series)


def methods_in_order(cuts: Sequence[ReportCut]) -> list[str]:
    """The methods without repetition, baselines last."""
    return list(dict.fromkeys(cut.method for cut in sorted(cuts, key=lambda cut: cut.is_baseline)))
