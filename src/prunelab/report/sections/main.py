"""The main table: depth against width against hybrid, of one size."""

from __future__ import annotations

from prunelab.report.grid import Study
from prunelab.report.parts import Section
from prunelab.report.tables import main_sheet


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
    sheet = main_sheet(study.grid, study.grid.sorted_cuts)
    return Section("results", "Depth, width and hybrid", lead, (sheet,))
