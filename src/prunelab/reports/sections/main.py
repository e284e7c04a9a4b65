"""The main table: depth against width against hybrid, of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Row, Section, TableCell, TableData
from prunelab.reports.tables import main_sheet

if TYPE_CHECKING:
    from prunelab.reports.grid import Study


def section(study: Study) -> Section | None:
    """Every cut with every benchmark."""
    if not study.grid.cuts:
        return None
    matched = (
        "Depth moves in whole blocks, and the other methods were asked for what it achieved, so that one ratio is one "
        "size. "
        if study.run.config.match_depth
        else "Every method was asked for the ratio as it stands; what it achieved is beside it. "
    )
    lead = (
        f"{matched}A ratio is a share of the decoder blocks' projection weights. Random methods show their mean ± the "
        "standard deviation over seeds; speed is a multiple of the dense model's."
    )
    sheet = _narrowed(main_sheet(study.grid, study.grid.sorted_cuts), study)
    return Section("results", "Results: depth, width and hybrid", lead, (sheet,), "Results")


def _narrowed(sheet: TableData, study: Study) -> TableData:
    """Method and ratio in one column, which names the row and stays in sight; seeds only where there are several."""
    with_seeds = any(study.grid.seeds(cut) > 1 for cut in study.grid.cuts)
    first_figure = 5 if not with_seeds else 4
    rows = []
    for cut, row in zip(study.grid.sorted_cuts, sheet.rows, strict=True):
        model, _, _, achieved, *_ = row.cells
        cells = (model, TableCell(cut.label), achieved, *row.cells[first_figure:])
        rows.append(Row(cells, row.model, row.baseline, row.strategy))
    columns = ("model", "cut", "achieved", *sheet.columns[first_figure:])
    return TableData(sheet.name, sheet.caption, columns, tuple(rows), heading=1)
