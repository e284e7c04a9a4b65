"""Which blocks, key-value groups and channels went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Figure, Section
from prunelab.reports.figures.plans import plan_map

if TYPE_CHECKING:
    from prunelab.reports.grid import Study


def section(study: Study) -> Section | None:
    """A map of the plans."""
    chart = plan_map(study)
    lead = "Where each method takes its share: whole blocks (full colour), or a little of many."
    return Section("plans", "What was removed", lead, (Figure(chart),), "Removed") if chart is not None else None
