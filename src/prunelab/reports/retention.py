"""Retention: how much of the dense model's quality a pruned model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING

from prunelab.reports.grid import Entry, Grid, ReportCut
from prunelab.stats.paired_tests import Z

if TYPE_CHECKING:
    from prunelab.reports.columns import Column


def retained(entry: Entry, dense: Entry, column: Column) -> float | None:
    """The share of the dense model's result that is retained: pruned / dense, or dense / pruned if lower is better."""
    above, below = (entry.value, dense.value) if column.higher_is_better else (dense.value, entry.value)
    return above / below if below > 0 else None


def above_chance(entry: Entry, dense: Entry, chance: float | None) -> float | None:
    """The retained share of the dense model's margin over chance; None if chance is unknown or not beaten.

    The dense model must beat chance by two standard errors (the 95 % level).
    """
    if chance is None:
        return None
    lead, error = dense.value - chance, dense.measurements[0].standard_error or 0.0
    return (entry.value - chance) / lead if lead > Z * error else None


def quality(grid: Grid, cut: ReportCut, column: Column, entry: Entry | None = None) -> float | None:
    """One benchmark's retention as `prunelab recommend` computes it: of the margin over chance, or of a perplexity.

    A result below chance counts as 0; None if the dense model does not beat chance.
    """
    entry, dense = entry or grid.entry(cut, column), grid.dense(cut.model, column)
    if entry is None or dense is None or not column.is_quality:
        return None
    if not column.higher_is_better:
        return retained(entry, dense, column)
    share = above_chance(entry, dense, grid.chance(cut.model, column) or 0.0)
    return None if share is None else max(0.0, share)


def mean_quality(grid: Grid, cut: ReportCut, seed: int | None = None) -> float | None:
    """The mean retention over the informative benchmarks (see `judging`); None if there are none.

    Args:
        grid: the run's grid.
        cut: the cut.
        seed: seed of a single cell; by default all cells of the cut.

    None as well for a cut that lacks one of these benchmarks, since the means would not be comparable.
    """
    qualities = []
    for column in judging(grid, cut.model):
        entry = grid.entry(cut, column)
        if entry is not None and seed is not None:
            column_quality = tuple(m for m in entry.measurements if m.seed == seed)
            entry = Entry(column_quality) if column_quality else None
        share = quality(grid, cut, column, entry) if entry else None
        if share is None:
            return None
        qualities.append(share)
    return fmean(qualities) if qualities else None


@lru_cache(maxsize=64)
def judging(grid: Grid, model: str) -> tuple[Column, ...]:
    """The benchmarks that are informative about retention: those on which the dense model beats chance."""
    dense = ReportCut(model, "dense", 0.0)
    return tuple(column for column in counted(grid, model) if quality(grid, dense, column) is not None)


def counted(grid: Grid, model: str) -> list[Column]:
    """A model's columns, with each benchmark once.

    If the dense model was measured with several numbers of shots, the benchmark's default number counts, else the
    smallest, as in `prunelab recommend`.
    """
    columns = grid.columns_of(model)
    by_benchmark: dict[tuple[str, str], list[Column]] = {}
    for column in columns:
        if grid.dense(model, column) is not None:
            by_benchmark.setdefault((column.benchmark, column.metric), []).append(column)
    return [
        column
        for column in columns
        if column is _standard(by_benchmark.get((column.benchmark, column.metric), [column]))
    ]


def _standard(columns: Sequence[Column]) -> Column:
    """The column that counts, of columns that differ only in the number of shots."""
    known = columns[0].known
    default = known.shots if known is not None else None
    return next((c for c in columns if c.shots == default), min(columns, key=lambda c: c.shots or 0))
