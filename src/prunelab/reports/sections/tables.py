"""The paper's tables for this run's models, with the paper's values for models that it evaluates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunelab.analysis.paper import Table, paper_note, paper_value
from prunelab.reports.columns import Column, number
from prunelab.reports.elements import Prose, Row, Section, TableCell, TableData

if TYPE_CHECKING:
    from prunelab.reports.grid import Entry, ReportCut, Study

TITLES = {
    "ifeval": "Table 1: IFEval, share of verifiable instructions followed",
    "throughput": "Table 2: generated tokens per second at batch size 1",
}
SINGLE: tuple[Table, ...] = ("ifeval", "throughput")
VISION: tuple[Table, ...] = ("pope", "textvqa", "mmmu")
POPE = (
    "POPE is reported as accuracy (F1 is in results.csv). The paper measures both and does not state which of them its "
    "Table 3 holds."
)


def section(study: Study) -> Section | None:
    """IFEval, throughput and the multimodal benchmarks, as far as they were measured."""
    parts: list[TableData | Prose] = []
    for table in SINGLE:
        column = _column(study, table)
        if column is not None:
            parts += [_sheet(study, table, column), *_note(study, table)]
    vision_columns = {table: column for table in VISION if (column := _column(study, table)) is not None}
    if vision_columns:
        note = _note(study, next(iter(vision_columns)))
        parts += [_vision(study, vision_columns), *note, *([Prose(POPE)] if note and "pope" in vision_columns else [])]
    lead = "The paper's values are shown for models that the paper evaluates."
    return Section("tables", "The paper's tables", lead, tuple(parts), "Tables") if parts else None


def _column(study: Study, table: Table) -> Column | None:
    return next((column for column in study.grid.columns if column.benchmark == table), None)


def _note(study: Study, table: Table) -> list[Prose]:
    """The paper's note on its table, if the run has one of its models."""
    known = any(paper_value(table, model, "baseline", 0.0) is not None for model in study.grid.models)
    return [Prose(f"Column of the paper: {paper_note(table)}")] if known else []


def _vision(study: Study, vision_columns: Mapping[Table, Column]) -> TableData:
    """Table 3: the three benchmarks side by side, in percent, as in the paper."""
    rows = []
    for cut in study.grid.sorted_cuts:
        entries = [study.grid.entry(cut, column) for column in vision_columns.values()]
        if any(entries):
            achieved = study.grid.achieved(cut)
            measured_cells = [TableCell("–") if e is None else _percent(100 * e.value, e.error) for e in entries]
            paper_values = [
                None if cut.is_baseline else paper_value(t, cut.model, cut.strategy, cut.ratio) for t in vision_columns
            ]
            paper_cells = [TableCell("–") if value is None else _percent(value) for value in paper_values]
            identity = (TableCell(cut.model), TableCell(cut.label), TableCell(f"{achieved:.1%}", achieved))
            rows.append(Row((*identity, *measured_cells, *paper_cells), cut.model, cut.is_baseline, cut.strategy))
    names = [f"{column.title.split(',')[0]}, %" for column in vision_columns.values()]
    columns = ("model", "cut", "achieved", *names, *(f"paper: {name}" for name in names))
    if not any(cell.value for row in rows for cell in row.cells[-len(names) :]):
        rows = [Row(row.cells[: -len(names)], row.model, row.baseline, row.strategy) for row in rows]
        columns = columns[: -len(names)]
    return TableData("paper_multimodal", "Table 3: multimodal benchmarks", columns, tuple(rows), heading=1)


def _percent(value: float, error: float | None = None) -> TableCell:
    return TableCell(f"{value:.2f}" + ("" if error is None else f" ± {number(100 * error, 2)}"), value)


def _sheet(study: Study, table: Table, column: Column) -> TableData:
    rows = []
    for cut in study.grid.sorted_cuts:
        entry, dense = study.grid.entry(cut, column), study.grid.dense(cut.model, column)
        if entry is not None:
            rows.append(_row(study, table, column, cut, entry, dense))
    name = "tokens a second" if table == "throughput" else column.metric_name
    columns: tuple[str, ...] = (
        "model",
        "cut",
        "achieved",
        name,
        "of the dense model",
        "paper",
        "paper, of the dense model",
    )
    if not any(row.cells[-2].value for row in rows):
        rows = [Row(row.cells[:-2], row.model, row.baseline, row.strategy) for row in rows]
        columns = columns[:-2]
    return TableData(f"paper_{table}", TITLES[table], columns, tuple(rows), heading=1)


def _row(study: Study, table: Table, column: Column, cut: ReportCut, entry: Entry, dense: Entry | None) -> Row:
    achieved = study.grid.achieved(cut)
    paper_result = None if cut.is_baseline else paper_value(table, cut.model, cut.strategy, cut.ratio)
    base = paper_value(table, cut.model, "baseline", 0.0)
    spread = "" if entry.error is None else f" ± {number(entry.error, 2)}"
    cells = (
        TableCell(cut.model),
        TableCell(cut.label),
        TableCell(f"{achieved:.1%}", achieved),
        TableCell(f"{column.text(entry.value)}{spread}", entry.value),
        _share(entry.value, dense.value if dense else None),
        TableCell("–") if paper_result is None else TableCell(number(paper_result), paper_result),
        _share(paper_result, base),
    )
    return Row(cells, cut.model, cut.is_baseline, cut.strategy)


def _share(value: float | None, base: float | None) -> TableCell:
    return TableCell("–") if value is None or not base else TableCell(f"{value / base:.0%}", value / base)
