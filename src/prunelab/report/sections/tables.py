"""The paper's tables, for this run's models, with the paper's own values beside ours where the model is the same."""

from __future__ import annotations

from typing import get_args

from prunelab.paper import Table, paper_model, paper_note, paper_value
from prunelab.report.columns import Column, number
from prunelab.report.grid import Cut, Entry, Study
from prunelab.report.parts import Cell, Prose, Row, Section, Sheet

TITLES = {
    "ifeval": "Table 1: IFEval, share of verifiable instructions followed",
    "throughput": "Table 2: generated tokens a second at batch size 1",
    "pope": "Table 3: POPE",
    "textvqa": "Table 3: TextVQA",
    "mmmu": "Table 3: MMMU",
}


def section(study: Study) -> Section | None:
    """IFEval, throughput and the multimodal benchmarks, where measured."""
    tables: tuple[Table, ...] = get_args(Table)
    parts: list[Sheet | Prose] = []
    for table in tables:
        column = next((c for c in study.grid.columns if c.benchmark == table), None)
        if column is not None:
            parts.append(_sheet(study, table, column))
            if any(paper_model(model) for model in study.grid.models):
                parts.append(Prose(f"The paper's column: {paper_note(table)}"))
    lead = "The paper's own values stand beside ours where the model is one of the paper's."
    return Section("tables", "The paper's tables", lead, tuple(parts)) if parts else None


def _sheet(study: Study, table: Table, column: Column) -> Sheet:
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
    return Sheet(f"paper_{table}", TITLES[table], columns, tuple(rows), heading=1)


def _row(study: Study, table: Table, column: Column, cut: Cut, entry: Entry, dense: Entry | None) -> Row:
    achieved = study.grid.achieved(cut)
    theirs = None if cut.is_baseline else paper_value(table, cut.model, cut.strategy, cut.ratio)
    base = paper_value(table, cut.model, "baseline", 0.0)
    spread = "" if entry.error is None else f" ± {number(entry.error, 2)}"
    cells = (
        Cell(cut.model),
        Cell(cut.label),
        Cell(f"{achieved:.1%}", achieved),
        Cell(f"{column.text(entry.value)}{spread}", entry.value),
        _share(entry.value, dense.value if dense else None),
        Cell("–") if theirs is None else Cell(number(theirs), theirs),
        _share(theirs, base),
    )
    return Row(cells, cut.model, cut.is_baseline, cut.strategy)


def _share(value: float | None, base: float | None) -> Cell:
    return Cell("–") if value is None or not base else Cell(f"{value / base:.0%}", value / base)
