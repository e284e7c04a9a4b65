"""The removed blocks, key-value groups and channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Figure, Section
from prunelab.reports.figures.plans import plan_map

if TYPE_CHECKING:
    from prunelab.reports.grid import Study


def section(study: Study) -> Section | None:
    """Heat maps of the pruning plans."""
    chart = plan_map(study)
    lead = "Where each method removes weights: entire blocks (full colour), or parts of many blocks."
    return Section("plans", "Removed weights", lead, (Figure(chart),), "Removed") if chart is not None else None
