"""How much of the dense model a cut keeps."""

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
    """A figure as a share of the dense model's; of a figure that should be low, the dense one's share of it."""
    above, below = (entry.value, dense.value) if column.higher_is_better else (dense.value, entry.value)
    return above / below if below > 0 else None


def above_chance(entry: Entry, dense: Entry, chance: float | None) -> float | None:
    """What is kept of the dense model's lead over guessing; None where guessing earns nothing, or as much as it does.

    A lead within two standard errors (the 95 % level) is none that a share could be taken of.
    """
    if chance is None:
        return None
    lead, error = dense.value - chance, dense.measurements[0].standard_error or 0.0
    return (entry.value - chance) / lead if lead > Z * error else None


def quality(grid: Grid, cut: ReportCut, column: Column, entry: Entry | None = None) -> float | None:
    """What one benchmark says is kept, as `prunelab recommend` counts it: of a lead over guessing, or a perplexity.

    Below chance nothing is kept; None where the dense model itself does not beat guessing.
    """
    entry, dense = entry or grid.entry(cut, column), grid.dense(cut.model, column)
    if entry is None or dense is None or not column.is_quality:
        return None
    if not column.higher_is_better:
        return retained(entry, dense, column)
    share = above_chance(entry, dense, grid.chance(cut.model, column) or 0.0)
    return None if share is None else max(0.0, share)


def mean_quality(grid: Grid, cut: ReportCut, seed: int | None = None) -> float | None:
    """The mean over the benchmarks that can say anything of the model; None where none can.

    Args:
        grid: the run's.
        cut: which.
        seed: of a single cell; by default all cells of the cut together.

    A cut that was measured on fewer of those benchmarks than others has none: the means would not compare.
    """
    found = []
    for column in judging(grid, cut.model):
        entry = grid.entry(cut, column)
        if entry is not None and seed is not None:
            own = tuple(m for m in entry.measurements if m.seed == seed)
            entry = Entry(own) if own else None
        share = quality(grid, cut, column, entry) if entry else None
        if share is None:
            return None
        found.append(share)
    return fmean(found) if found else None


@lru_cache(maxsize=64)
def judging(grid: Grid, model: str) -> tuple[Column, ...]:
    """The benchmarks that can say what a model keeps: the dense one is better than chance there."""
    dense = ReportCut(model, "dense", 0.0)
    return tuple(column for column in counted(grid, model) if quality(grid, dense, column) is not None)


def counted(grid: Grid, model: str) -> list[Column]:
    """The columns of a model, each benchmark once.

    Of several numbers of shots that the dense model was measured with the benchmark's own counts, or else the fewest,
    as for `prunelab recommend`.
    """
    columns = grid.columns_of(model)
    alike: dict[tuple[str, str], list[Column]] = {}
    for column in columns:
        if grid.dense(model, column) is not None:
            alike.setdefault((column.benchmark, column.metric), []).append(column)
    return [column for column in columns if column is _standard(alike.get((column.benchmark, column.metric), [column]))]


def _standard(columns: Sequence[Column]) -> Column:
    """Of columns that differ by shots alone the one that counts."""
    known = columns[0].known
    default = known.shots if known is not None else None
    return next((c for c in columns if c.shots == default), min(columns, key=lambda c: c.shots or 0))
