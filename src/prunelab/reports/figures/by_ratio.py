"""Figures by ratio: accuracy (the paper's Fig. 1 and 6), pass@1 (Fig. 2), ln perplexity (Fig. 4), and quality kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from prunelab.reports.chart import Chart, Level, Panel, Point, Series
from prunelab.reports.columns import Column, marker_of, number, series_name
from prunelab.reports.grid import Entry, Grid, ReportCut
from prunelab.reports.retention import judging, mean_quality

REMOVED = "removed share of the blocks' weights, %"
BARS = (
    "Bars are one standard error; where a method draws at random, the spread of its seeds. Hollow points: no change "
    "from the dense model was seen (paired test, 5 %, after Holm)."
)


def accuracy_by_ratio(grid: Grid) -> Chart | None:
    """Accuracies, one panel a model and benchmark, with the level of chance."""
    panels = _panels(grid, lambda c: c.is_quality and not c.is_perplexity and c.metric not in ("pass@1",))
    caption = f"The paper's Fig. 1 and 6. Dotted: what guessing earns. Dashed lines are baselines. {BARS}"
    return Chart("accuracy_by_ratio", "Accuracy by ratio", caption, panels) if panels else None


def pass_at_1(grid: Grid) -> Chart | None:
    """HumanEval's pass@1."""
    panels = _panels(grid, lambda c: c.metric == "pass@1")
    return Chart("pass_at_1", "pass@1", f"The paper's Fig. 2. {BARS}", panels) if panels else None


def ln_perplexity(grid: Grid) -> Chart | None:
    """Perplexities by their natural logarithm."""
    panels = _panels(grid, lambda c: c.is_perplexity)
    caption = f"The paper's Fig. 4: the natural logarithm, so that one unit is a factor of 2.7. Lower is better. {BARS}"
    return Chart("ln_perplexity", "ln perplexity", caption, panels) if panels else None


def quality_by_ratio(grid: Grid) -> Chart | None:
    """The mean share of the dense model's quality that every cut keeps, one panel a model."""
    panels = []
    for model in grid.models:
        columns = judging(grid, model)
        if not columns:
            continue

        def value(cut: ReportCut) -> Point | None:
            kept = mean_quality(grid, cut)
            x = 100 * grid.achieved(cut)
            tip = f"{cut.model}, {cut.label}: keeps {kept or 0:.0%}"
            return None if kept is None else Point(x, 100 * kept, tip=tip)

        series = _series(grid, model, value)
        if series:
            panels.append(Panel(model, model, series, REMOVED, "quality kept, %"))
    caption = (
        "The mean over benchmarks of what is kept of the dense model: accuracies above chance, pass@1 and instructions "
        "followed as shares, perplexities as dense / pruned. Benchmarks where the dense model does not beat chance by "
        "two standard errors say nothing and are left out; so are speed and StereoSet. Of several numbers of shots a "
        "benchmark's own counts."
    )
    return Chart("quality_by_ratio", "Quality kept", caption, tuple(panels)) if panels else None


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
    """The figure with its bar; of a perplexity the logarithm, whose error is the relative one."""
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
    """One a method, each beginning at the dense model."""
    dense = ReportCut(model, "dense", 0.0)
    start = value(dense) if dense in grid.cuts else None
    cuts = grid.of_model(model, dense=False)
    found: list[Series] = []
    for method in methods_in_order(cuts):
        own = [point for cut in cuts if cut.method == method and (point := value(cut)) is not None]
        points = sorted(own, key=lambda point: point.x)
        first = next(cut for cut in cuts if cut.method == method)
        if points:
            line = ([start] if start else []) + points
            found.append(
                Series(series_name(method), first.strategy, tuple(line), marker_of(method), dashed=first.is_baseline)
            )
    if not found and start:
        found.append(Series("dense", "dense", (start,)))
    return tuple(found)


def methods_in_order(cuts: Sequence[ReportCut]) -> list[str]:
    """Every method once, baselines last."""
    return list(dict.fromkeys(cut.method for cut in sorted(cuts, key=lambda cut: cut.is_baseline)))
