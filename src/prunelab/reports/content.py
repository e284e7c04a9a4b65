"""The report's content, independent of its output format: the headline and all sections that apply to the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.reports.elements import ClaimVerdict, Figure, Section, TableData
from prunelab.reports.figures.data import chart_sheet
from prunelab.reports.grid import Study
from prunelab.reports.sections import (
    claims,
    completions,
    failure_modes,
    figures,
    frontier,
    main,
    mmlu,
    plans,
    provenance,
    recommendation,
    retention,
    significance,
    tables,
)
from prunelab.reports.sections.headline import Headline, headline

if TYPE_CHECKING:
    from prunelab.reports.chart import Chart
    from prunelab.studies.run import Run

# In reading order.
SECTIONS = (
    main, recommendation, claims, figures, tables, retention, frontier, plans, mmlu, failure_modes, completions,
    significance, provenance,
)  # fmt: skip


@dataclass(frozen=True)
class ReportContent:
    """The content of the page, the Markdown file, the tables and the figures."""

    study: Study
    headline: Headline
    sections: tuple[Section, ...]

    @property
    def charts(self) -> Iterator[Chart]:
        """All figures."""
        if self.headline.chart is not None:
            yield self.headline.chart
        yield from (part.chart for section in self.sections for part in section.parts if isinstance(part, Figure))

    @property
    def sheets(self) -> Iterator[TableData]:
        """All tables, including the tables of the figures' values."""
        for section in self.sections:
            for part in section.parts:
                if isinstance(part, TableData):
                    yield part
                elif isinstance(part, ClaimVerdict) and part.evidence is not None:
                    yield part.evidence
        yield from map(chart_sheet, self.charts)


def report_of(run: Run) -> ReportContent:
    """Build the report of a run."""
    study = Study.of(run)
    sections = (module.section(study) for module in SECTIONS)
    return ReportContent(study, headline(study), tuple(section for section in sections if section is not None))
