"""What a reader with two minutes needs of one model: what was lost, what to do, and how sure that is."""

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
"""From this kept share on a benchmark counts as one that holds."""
NAMED = 3
"""Benchmarks that are named where many are hit."""


@dataclass(frozen=True)
class Brief:
    """One model in short.

    Attributes:
        model: which.
        strategies: columns of `kept`.
        kept: a row a ratio: the ratio, and what every strategy keeps, in words.
        lost: which benchmarks are hit and which hold at the mildest ratio, a sentence each.
        take: the recommendation, a sentence or two; empty where there is none.
        command: makes the checkpoint.
        sure: what was tested and what says nothing, a sentence each.
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
        """The same as sentences."""
        shares = [
            f"at {ratio} {listed([f'{s} {k}' for s, k in zip(self.strategies, own, strict=True)])}"
            for ratio, own in self.kept
        ]
        kept = f"It keeps {'; '.join(shares)} of its quality." if shares else ""
        return [line for line in (kept, *self.lost, self.take, *self.sure) if line]


def brief(study: Study, model: str) -> Brief:
    """One model in short."""
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
    found = study.recommendations.get(model)
    return Brief(
        model,
        strategies,
        kept,
        tuple(_lost(grid, model, alone)),
        _take(found) if found is not None else "",
        found.command if found is not None else "",
        tuple(_sure(study, model)),
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "nothing"


def _kept(grid: Grid, cuts: Sequence[ReportCut], ratio: float | None, strategy: str) -> list[float]:
    own = [cut for cut in cuts if cut.strategy == strategy and ratio in (None, cut.ratio)]
    return [kept for cut in own if (kept := mean_quality(grid, cut)) is not None]


def _share(kept: Sequence[float]) -> str:
    return f"{mean(kept):.0%}" if kept else "–"


def _lost(grid: Grid, model: str, cuts: Sequence[ReportCut]) -> list[str]:
    """The benchmarks that are hit hardest at the mildest ratio, and those that hold."""
    ratio = min((cut.ratio for cut in cuts), default=None)
    shares: list[tuple[float, Column]] = []
    for column in judging(grid, model):
        own = [s for cut in cuts if cut.ratio == ratio and (s := quality(grid, cut, column)) is not None]
        if own:
            shares.append((mean(own), column))
    if not shares or ratio is None:
        return []
    shares.sort(key=lambda one: one[0])
    hit = [(share, column) for share, column in shares if share < HOLDS][:NAMED]
    hold = [_name(column) for share, column in shares if share >= HOLDS]
    names = listed([f"{_name(column)} (keeps {share:.0%})" for share, column in hit])
    lines = [f"Hit hardest at {ratio:.0%}: {names}."] if hit else []
    return [*lines, f"Holding: {listed(hold)}."] if hold else lines


def _name(column: Column) -> str:
    return column.title.split(",")[0]


def cut_words(one: Candidate) -> str:
    """A cut and what it gives: "shortgpt at 10% keeps 92.0% of the quality and is 1.10x as fast"."""
    words = [f"keeps {one.quality:.1%} of the quality"] if one.quality is not None else []
    words += [f"is {one.speedup:.2f}x as fast"] if one.speedup is not None else []
    return f"{one.cut.method} at {one.cut.ratio:.0%} {listed(words)}" if words else f"{one.cut.method}"


def _take(found: Recommendation) -> str:
    if found.choice.feasible:
        return f"Take {found.choice.cut.method} at {found.choice.cut.ratio:.0%}: {cut_words(found.choice)}."
    wanted = f"{found.need.keep or KEEP:.0%}"
    return f"No cut keeps {wanted} of the quality: leave the model whole, or accept that {cut_words(found.choice)}."


def _sure(study: Study, model: str) -> list[str]:
    """How many changes were seen, and which benchmarks say nothing."""
    own = [d for d in study.run.differences if d.measurement.model == model]
    tested = [d for d in own if not study.run.duplicates.has(d.measurement)]
    worse = [d for d in tested if d.comparison.significant and (d.comparison.difference > 0) != d.higher_is_better]
    lines = [f"{len(worse)} of {len(tested)} paired tests see a loss (5 %, after Holm)."] if tested else []
    judged = judging(study.grid, model)
    few = list(dict.fromkeys(_name(Column.of(d.measurement)) for d in tested if d.comparison.too_few))
    lines += [f"Too few samples to tell: {listed(few)}."] if few else []
    lines += (
        [f"{listed(duplicates)}: measured and counted once."]
        if (duplicates := study.run.duplicates.sentences(model))
        else []
    )
    silent = [_name(c) for c in counted(study.grid, model) if c.is_quality and c not in judged]
    if silent:
        lines.append(f"The dense model is at chance on {listed(silent)}, which so say nothing.")
    return lines
