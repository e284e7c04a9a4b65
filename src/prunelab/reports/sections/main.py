"""The main table: depth, width and hybrid pruning at matched sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Row, Section, TableCell, TableData
from prunelab.reports.tables import main_sheet

if TYPE_CHECKING:
    from prunelab.reports.grid import Study


def section(study: Study) -> Section | None:
    """All cuts on all benchmarks."""
    if not study.grid.cuts:
        return None
    matched = (
        "Depth pruning removes entire blocks; the other methods were given the ratio that it achieved, so that models "
        "of one ratio have the same size. "
        if study.run.config.match_depth
        else "Each method was given the same ratio; the table shows the ratio that it achieved. "
    )
    lead = (
        f"{matched}Ratios are shares of the decoder blocks' projection weights. Random methods show mean ± standard "
        "deviation over seeds; speed is a multiple of the dense model's."
    )
    sheet = _narrowed(main_sheet(study.grid, study.grid.sorted_cuts), study)
    return Section("results", "Results: depth, width and hybrid", lead, (sheet,), "Results")


def _narrowed(sheet: TableData, study: Study) -> TableData:
    """Method and ratio joined in one fixed column; seeds only if a cut has several."""
    with_seeds = any(study.grid.seeds(cut) > 1 for cut in study.grid.cuts)
    first_figure = 5 if not with_seeds else 4
    rows = []
    for cut, row in zip(study.grid.sorted_cuts, sheet.rows, strict=True):
        model, _, _, achieved, *_ = row.cells
        cells = (model, TableCell(cut.label), achieved, *row.cells[first_figure:])
        rows.append(Row(cells, row.model, row.baseline, row.strategy))
    columns = ("model", "cut", "achieved", *sheet.columns[first_figure:])
    return TableData(sheet.name, sheet.caption, columns, tuple(rows), heading=1)
