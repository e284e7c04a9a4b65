"""Quality against speed and against memory, one point per cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import MeasuredCut
from prunelab.analysis.recommend.command import prune_command
from prunelab.evaluation.records import times_as_fast
from prunelab.reports.chart import Chart, Panel, Point, Series
from prunelab.reports.columns import marker_of, number, series_name
from prunelab.reports.figures.by_ratio import methods_in_order
from prunelab.reports.retention import mean_quality

if TYPE_CHECKING:
    from prunelab.reports.grid import ReportCut, Study
    from prunelab.studies.store import Measurement

AXES = {
    "decode_tokens_per_second": (
        "frontier_speed",
        "Quality against speed",
        "decoding speed relative to the dense model",
    ),
    "weight_bytes": ("frontier_memory", "Quality against memory", "size of the weights relative to the dense model, %"),
}


def frontier(study: Study, metric: str) -> Chart | None:
    """One panel per model, with the Pareto frontier as a stepped line.

    Args:
        study: the run.
        metric: `decode_tokens_per_second` or `weight_bytes`.
    """
    name, title, x_label = AXES[metric]
    figures = {(m.model, m.method, m.ratio, m.seed): m for m in study.run.measurements if m.metric == metric}
    panels = []
    for model in study.grid.models:
        series = _series(study, model, metric, figures)
        points = [point for line in series for point in line.points]
        if len(points) > 1:
            best = Series("frontier", "dense", tuple(_best(points, metric == "weight_bytes")), "none")
            panels.append(Panel(model, model, (best, *series), x_label, "quality retained, %", focusable=True))
    caption = "One point per cell; hover over it, or use Tab and the arrow keys, to see its plan and command."
    return Chart(name, title, caption, tuple(panels)) if panels else None


def _series(
    study: Study, model: str, metric: str, figures: dict[tuple[str, str, float, int | None], Measurement]
) -> tuple[Series, ...]:
    grid = study.grid
    dense = figures.get((model, "dense", 0.0, None))
    cuts = grid.of_model(model)
    series = []
    for method in methods_in_order(cuts):
        points = []
        for cut in (cut for cut in cuts if cut.method == method):
            for (*_, seed), cell_figure in _cells(figures, cut):
                quality = mean_quality(grid, cut, seed)
                if dense is not None and quality is not None:
                    is_speed = metric == "decode_tokens_per_second"
                    times = times_as_fast(cell_figure, dense.value) if is_speed else cell_figure.value / dense.value
                    x = times if is_speed else 100 * times
                    points.append(Point(x, 100 * quality, tip=_tip(study, cut, cell_figure, times, quality)))
        if points:
            strategy = next(cut.strategy for cut in cuts if cut.method == method)
            series.append(Series(series_name(method), strategy, tuple(points), marker_of(method), line=False))
    return tuple(series)


def _cells(
    figures: dict[tuple[str, str, float, int | None], Measurement], cut: ReportCut
) -> Iterable[tuple[tuple[str, str, float, int | None], Measurement]]:
    return [(key, m) for key, m in figures.items() if key[:3] == (cut.model, cut.method, cut.ratio)]


def _tip(study: Study, cut: ReportCut, cell_figure: Measurement, times: float, quality: float) -> str:
    """Cell, results, plan and command, one line each."""
    what = f"{times:.2f}x speed" if cell_figure.metric == "decode_tokens_per_second" else f"{times:.0%} of the size"
    lines = [f"{cut.model}, {cut.label}{f', seed {cell_figure.seed}' if cell_figure.seed else ''}"]
    lines.append(f"{quality:.1%} of the quality retained at {what}")
    plan = study.plans.get(cell_figure.plan or "")
    if plan is not None:
        removed = plan.removed_blocks
        blocks = f"without blocks {', '.join(map(str, removed))}" if removed else "no block removed"
        lines.append(f"plan {plan.fingerprint[:8]}: {number(100 * plan.achieved_ratio, 3)} % removed, {blocks}")
        lines.append(
            prune_command(
                study.run,
                MeasuredCut(
                    cell_figure.model,
                    cell_figure.method,
                    cell_figure.ratio,
                    cell_figure.achieved_ratio,
                    cell_figure.seed,
                ),
                plan,
            )
        )
    return "\n".join(lines)


def _best(points: list[Point], less_is_better: bool) -> list[Point]:
    """The Pareto frontier as a step line, starting at the highest quality."""
    sign = -1 if less_is_better else 1
    ordered = sorted(points, key=lambda p: (-sign * p.x, -p.y))
    stairs: list[Point] = []
    top = float("-inf")
    for point in ordered:
        if point.y > top:
            if stairs:
                stairs.append(Point(point.x, stairs[-1].y))
            stairs.append(Point(point.x, point.y))
            top = point.y
    return stairs
