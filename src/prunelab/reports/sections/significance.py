"""Significance: every difference from the dense model, with its test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunelab.reports.columns import Column, number, strategy_of
from prunelab.reports.elements import Row, Section, TableCell, TableData
from prunelab.reports.grid import ReportCut, Study

if TYPE_CHECKING:
    from prunelab.studies.comparison import Difference

LEAD = (
    "Each cut is compared with the dense model on the same samples: exact McNemar test for correct and incorrect "
    "answers, paired bootstrap for all other metrics (below six samples, its standard error with Student's t, and p "
    "no smaller than a sign test can give). Intervals are 95 %; p is also Holm-adjusted over the cut's benchmarks."
)
COLUMNS = ("model", "cut", "seed", "benchmark", "dense", "pruned", "change", "95 % interval", "p", "p after Holm", "n",
           "seen")  # fmt: skip


def section(study: Study) -> Section | None:
    """One row per cut, seed and benchmark."""
    order = {cut: index for index, cut in enumerate(study.grid.sorted_cuts)}
    differences = sorted(study.run.differences, key=lambda d: (order[_cut(d)], d.measurement.seed or 0))
    if not differences:
        return None
    sheet = TableData("changes", "Each cut compared with the dense model", COLUMNS, tuple(map(_row, differences)), 1)
    return Section("changes", "Significance tests", LEAD, (sheet,), "Significance")


def _cut(d: Difference) -> ReportCut:
    return ReportCut(d.measurement.model, d.measurement.method, d.measurement.ratio)


def _row(d: Difference) -> Row:
    m, c, column, cut = d.measurement, d.comparison, Column.of(d.measurement), _cut(d)
    mark = ("better" if (c.difference > 0) == d.higher_is_better else "worse") if c.significant else ""
    bounded = all(map(math.isfinite, c.interval))
    cells = (
        TableCell(m.model),
        TableCell(cut.label),
        TableCell(str(m.seed or 0), m.seed or 0),
        TableCell(f"{column.title}"),
        TableCell(column.text(c.dense), c.dense),
        TableCell(column.text(c.pruned), c.pruned),
        TableCell(number(c.difference, 3), c.difference, mark=mark),
        TableCell(f"{number(c.interval[0], 3)} to {number(c.interval[1], 3)}" if bounded else "unbounded"),
        TableCell(_p(c.p), c.p),
        TableCell("–") if c.p_adjusted is None else TableCell(_p(c.p_adjusted), c.p_adjusted),
        TableCell(str(c.n), c.n, c.test),
        TableCell(mark or "not significant", mark=mark),
    )
    return Row(cells, m.model, cut.is_baseline, strategy_of(m.method))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
