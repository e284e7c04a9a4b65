"""A model's summary: what pruning costs, the recommendation, and the statistical confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from prunelab.analysis.recommend import KEEP, Candidate, Recommendation
from prunelab.reports.columns import Column
from prunelab.reports.retention import counted, judging, mean_quality, quality

if TYPE_CHECKING:
    from prunelab.reports.grid import Grid, ReportCut, Study

STRATEGIES = ("depth", "width", "hybrid")
HOLDS = 0.97
"""A benchmark with at least this retention counts as preserved."""
NAMED = 3
"""Maximum number of degraded benchmarks that the summary names."""


@dataclass(frozen=True)
class Brief:
    """The summary of one model.

    Attributes:
        model: name of the model.
        strategies: the columns of `kept`.
        kept: one row per ratio: the ratio and each strategy's retention, formatted.
        lost: sentences on the most degraded and the preserved benchmarks at the smallest ratio.
        take: the recommendation, one or two sentences; empty if there is none.
        command: the command that creates the checkpoint.
        sure: sentences on the tests, and on benchmarks that are not informative.
    """

    model: str
    strategies: tuple[str, ...]
    kept: tuple[tuple[str, tuple[str, ...]], ...]
    lost: tuple[str, ...]
    take: str
    command: str
    sure: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The summary as sentences."""
        shares = [
            f"at {ratio} {listed([f'{s} {k}' for s, k in zip(self.strategies, row_shares, strict=True)])}"
            for ratio, row_shares in self.kept
        ]
        kept = f"Quality retained: {'; '.join(shares)}." if shares else ""
        return [line for line in (kept, *self.lost, self.take, *self.sure) if line]


def brief(study: Study, model: str) -> Brief:
    """The summary of one model."""
    grid = study.grid
    duplicates = study.run.duplicates
    cuts = [cut for cut in grid.of_model(model, dense=False) if not cut.is_baseline]
    alone = [cut for cut in cuts if not duplicates.has(cut)]
    strategies = tuple(name for name in STRATEGIES if any(_kept(grid, cuts, None, name)))
    kept = tuple(
        (f"{ratio:.0%}", tuple(_share(_kept(grid, cuts, ratio, name)) for name in strategies))
        for ratio in sorted({cut.ratio for cut in cuts})
        if any(_kept(grid, cuts, ratio, name) for name in strategies)
    )
    recommendation = study.recommendations.get(model)
    return Brief(
        model,
        strategies,
        kept,
        tuple(_lost(grid, model, alone)),
        _take(recommendation) if recommendation is not None else "",
        recommendation.command if recommendation is not None else "",
        tuple(_sure(study, model)),
    )


def listed(names: Sequence[str]) -> str:
    """Names as an enumeration for a sentence."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "nothing"


def _kept(grid: Grid, cuts: Sequence[ReportCut], ratio: float | None, strategy: str) -> list[float]:
    selected = [cut for cut in cuts if cut.strategy == strategy and ratio in (None, cut.ratio)]
    return [kept for cut in selected if (kept := mean_quality(grid, cut)) is not None]


def _share(kept: Sequence[float]) -> str:
    return f"{mean(kept):.0%}" if kept else "–"


def _lost(grid: Grid, model: str, cuts: Sequence[ReportCut]) -> list[str]:
    """Sentences on the most degraded and the preserved benchmarks at the smallest ratio."""
    ratio = min((cut.ratio for cut in cuts), default=None)
    shares: list[tuple[float, Column]] = []
    for column in judging(grid, model):
        qualities = [s for cut in cuts if cut.ratio == ratio and (s := quality(grid, cut, column)) is not None]
        if qualities:
            shares.append((mean(qualities), column))
    if not shares or ratio is None:
        return []
    shares.sort(key=lambda item: item[0])
    hit = [(share, column) for share, column in shares if share < HOLDS][:NAMED]
    hold = [_name(column) for share, column in shares if share >= HOLDS]
    names = listed([f"{_name(column)} ({share:.0%} retained)" for share, column in hit])
    lines = [f"Most degraded at {ratio:.0%}: {names}."] if hit else []
    return [*lines, f"Preserved: {listed(hold)}."] if hold else lines


def _name(column: Column) -> str:
    return column.title.split(",")[0]


def cut_words(candidate: Candidate) -> str:
    """A cut and its results: "shortgpt at 10% retains 92.0% of the quality and is 1.10x as fast"."""
    words = [f"retains {candidate.quality:.1%} of the quality"] if candidate.quality is not None else []
    words += [f"is {candidate.speedup:.2f}x as fast"] if candidate.speedup is not None else []
    return (
        f"{candidate.cut.method} at {candidate.cut.ratio:.0%} {listed(words)}" if words else f"{candidate.cut.method}"
    )


def _take(recommendation: Recommendation) -> str:
    if recommendation.choice.feasible:
        return f"Recommended: {cut_words(recommendation.choice)}."
    wanted = f"{recommendation.need.keep or KEEP:.0%}"
    closest = cut_words(recommendation.choice)
    return f"No cut retains {wanted} of the quality: keep the dense model, or accept that {closest}."


def _sure(study: Study, model: str) -> list[str]:
    """Sentences on the number of significant changes, and on benchmarks that are not informative."""
    differences = [d for d in study.run.differences if d.measurement.model == model]
    tested = [d for d in differences if not study.run.duplicates.has(d.measurement)]
    worse = [d for d in tested if d.comparison.significant and (d.comparison.difference > 0) != d.higher_is_better]
    lines = (
        [f"{len(worse)} of {len(tested)} paired tests show a significant loss (Holm-adjusted p < 0.05)."]
        if tested
        else []
    )
    judged = judging(study.grid, model)
    few = list(dict.fromkeys(_name(Column.of(d.measurement)) for d in tested if d.comparison.too_few))
    lines += [f"Too few samples for a significant result: {listed(few)}."] if few else []
    lines += (
        [f"{listed(duplicates)}: measured and counted once."]
        if (duplicates := study.run.duplicates.sentences(model))
        else []
    )
    silent = [_name(c) for c in counted(study.grid, model) if c.is_quality and c not in judged]
    if silent:
        lines.append(f"Not informative, since the dense model is at chance: {listed(silent)}.")
    return lines
