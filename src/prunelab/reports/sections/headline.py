"""The headline: what was studied, and the main finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.reports.figures.by_ratio import quality_by_ratio
from prunelab.reports.retention import mean_quality
from prunelab.reports.summary import Brief, brief, listed

if TYPE_CHECKING:
    from prunelab.reports.chart import Chart
    from prunelab.reports.grid import Grid, Study


@dataclass(frozen=True)
class Headline:
    """The top of the report.

    Attributes:
        studied: what was studied, one sentence.
        finding: the main finding, one sentence; empty if depth and width cannot be compared.
        briefs: the summary of each model.
        chart: retention by ratio; None if no benchmark is informative.
        failed: number of cells that failed.
    """

    studied: str
    finding: str
    briefs: tuple[Brief, ...]
    chart: Chart | None
    failed: int


def headline(study: Study) -> Headline:
    """The top of the report."""
    grid = study.grid
    return Headline(
        studied=_studied(study),
        finding=_duel(grid),
        briefs=tuple(brief(study, model) for model in grid.models if grid.of_model(model, dense=False)),
        chart=quality_by_ratio(grid),
        failed=len(study.run.failures),
    )


def _studied(study: Study) -> str:
    grid = study.grid
    methods = list(dict.fromkeys(cut.method for cut in grid.sorted_cuts if not cut.is_dense and not cut.is_baseline))
    baselines = list(dict.fromkeys(cut.method for cut in grid.cuts if cut.is_baseline))
    ratios = sorted({cut.ratio for cut in grid.cuts if not cut.is_dense})
    benchmarks = list(dict.fromkeys(column.benchmark for column in grid.columns))
    if not grid.cuts:
        return "No cell of this study could be measured."
    if not ratios:
        return f"{listed(grid.models)} (dense), evaluated on {_count(len(benchmarks), 'benchmark')}."
    by = f"with {listed(methods)}" if methods else f"with {listed(baselines)}"
    baseline_words = f" and {_count(len(baselines), 'baseline')}" if methods and baselines else ""
    shares = listed([f"{100 * ratio:g}" for ratio in ratios])
    evaluated = f"evaluated on {_count(len(benchmarks), 'benchmark')}"
    return f"{listed(grid.models)}, pruned by {shares} % {by}{baseline_words}, without training; {evaluated}."


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _duel(grid: Grid) -> str:
    """How often depth pruning retains more than width pruning at the same ratio."""
    won = drawn = 0
    for depth in grid.cuts:
        for width in grid.cuts:
            same = depth.model == width.model and depth.ratio == width.ratio
            if not same or (depth.strategy, width.strategy) != ("depth", "width"):
                continue
            qualities = (mean_quality(grid, depth), mean_quality(grid, width))
            if not (depth.is_baseline or width.is_baseline) and qualities[0] is not None and qualities[1] is not None:
                drawn += 1
                won += qualities[0] > qualities[1]
    if not drawn:
        return ""
    if won in (0, drawn):
        best, worse = ("Depth", "width") if won else ("Width", "depth")
        often = {1: "in the only comparison", 2: "in both comparisons"}.get(drawn, f"in all {drawn} comparisons")
        return f"{best} pruning retained more quality than {worse} pruning at the same ratio {often}."
    return f"Depth pruning retained more quality than width pruning at the same ratio in {won} of {drawn} comparisons."
