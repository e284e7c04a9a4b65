"""The trade-off of quality against speed and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Figure, Section
from prunelab.reports.figures.frontier import AXES, frontier

if TYPE_CHECKING:
    from prunelab.reports.grid import Study


def section(study: Study) -> Section | None:
    """Quality against speed, and against memory."""
    charts = [chart for metric in AXES if (chart := frontier(study, metric)) is not None]
    lead = (
        "Quality is the mean retention over benchmarks. The stepped line is the Pareto frontier: no other cell is "
        "better in both. Speed was measured in eager mode at batch size 1."
    )
    parts = tuple(map(Figure, charts))
    return Section("frontier", "Quality, speed and memory", lead, parts, "Frontier") if charts else None
