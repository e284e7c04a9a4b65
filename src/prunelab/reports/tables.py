"""The main results table, and tables as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from prunelab.evaluation.records import times_as_fast
from prunelab.io.markup import markdown
from prunelab.reports.columns import Column, number
from prunelab.reports.elements import Row, TableCell, TableData
from prunelab.reports.grid import Entry, Grid, ReportCut, report_grid

if TYPE_CHECKING:
    from prunelab.studies.comparison import Difference
    from prunelab.studies.store import Measurement


@dataclass(frozen=True)
class Table:
    """A table of text: columns and rows."""

    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [_markdown_row(self.columns), "|" + "|".join(["---"] * len(self.columns)) + "|"]
        return "\n".join(lines + [_markdown_row(row) for row in self.rows])


def table_of(sheet: TableData) -> Table:
    """The text of a table."""
    return Table(list(sheet.columns), [[cell.text for cell in row.cells] for row in sheet.rows])


def csv_of(sheet: TableData) -> str:
    """A table as CSV, with numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.columns)
    for row in sheet.rows:
        writer.writerow([cell.text if cell.value is None else repr(cell.value) for cell in row.cells])
    return text.getvalue()


def main_table(measurements: Sequence[Measurement], differences: Sequence[Difference] = ()) -> Table:
    """Each model's cuts with all benchmarks' primary metrics, in the order of the measurements; see `main_sheet`."""
    grid = report_grid(measurements, differences)
    return table_of(main_sheet(grid, grid.cuts))


def main_sheet(grid: Grid, cuts: Sequence[ReportCut]) -> TableData:
    """Each cut with all benchmarks' primary metrics.

    Cells that differ only in their seed share a row: mean and sample standard deviation over the seeds. Speed is a
    multiple of the dense model's, since absolute times depend on the machine. In rows of a single cell, an asterisk
    marks a significant difference from the dense model (Holm-adjusted p < 0.05).
    """
    rows = []
    for cut in cuts:
        achieved = grid.achieved(cut)
        identity = (
            TableCell(cut.model),
            TableCell(cut.method),
            TableCell(f"{cut.ratio:.0%}", cut.ratio),
            TableCell(f"{achieved:.1%}", achieved),
            TableCell(str(grid.seeds(cut)), grid.seeds(cut)),
        )
        figures = tuple(_figure(grid, cut, column) for column in grid.columns)
        rows.append(Row(identity + figures, cut.model, cut.is_baseline, cut.strategy))
    columns = ("model", "method", "ratio", "achieved", "seeds", *(c.heading for c in grid.columns))
    caption = (
        "All cuts on all benchmarks. Ratio: requested share of the blocks' weights; achieved: removed share. "
        "* significantly different from the dense model (paired test, Holm-adjusted p < 0.05)"
    )
    return TableData("main", caption, columns, tuple(rows), heading=1)


def _figure(grid: Grid, cut: ReportCut, column: Column) -> TableCell:
    entry, dense = grid.entry(cut, column), grid.dense(cut.model, column)
    if entry is None:
        return TableCell("–")
    tip = entry.differences[0].sentence() if len(entry.differences) == 1 else ""
    if column.metric == "decode_tokens_per_second":
        return _speed(entry, dense, column)
    spread = "" if entry.spread is None else f" ± {number(entry.spread, 2)}"
    mark = ""
    if entry.is_seen:
        rose = entry.differences[0].comparison.difference > 0
        mark = "better" if rose == column.higher_is_better else "worse"
    return TableCell(f"{column.text(entry.value)}{'*' if mark else ''}{spread}", entry.value, tip, mark=mark)


def _speed(entry: Entry, dense: Entry | None, column: Column) -> TableCell:
    tip = f"{number(entry.value)} tokens per second"
    if dense is None:
        return TableCell("–", entry.value, tip)
    times = fmean(times_as_fast(m, dense.value) for m in entry.measurements)
    return TableCell(f"{times:.2f}x", times, tip)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown, cells))} |"
