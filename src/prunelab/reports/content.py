"""The report before it is written: the headline and every section that has something to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.reports.elements import ClaimVerdict, Figure, Section, TableData
from prunelab.reports.figures.data import chart_sheet
from prunelab.reports.grid import Study
from prunelab.reports.sections import (
    breakage,
    changes,
    claims,
    completions,
    figures,
    frontier,
    made,
    main,
    mmlu,
    plans,
    recommendation,
    retained,
    tables,
)
from prunelab.reports.sections.headline import Headline, headline

if TYPE_CHECKING:
    from prunelab.reports.chart import Chart
    from prunelab.studies.run import Run

# The order in which a reader wants them.
SECTIONS = (
    main, recommendation, claims, figures, tables, retained, frontier, plans, mmlu, breakage, completions,
    changes, made,
)  # fmt: skip


@dataclass(frozen=True)
class ReportContent:
    """All that the page and the files show."""

    study: Study
    headline: Headline
    sections: tuple[Section, ...]

    @property
    def charts(self) -> Iterator[Chart]:
        """Every figure."""
        if self.headline.chart is not None:
            yield self.headline.chart
        yield from (part.chart for section in self.sections for part in section.parts if isinstance(part, Figure))

    @property
    def sheets(self) -> Iterator[TableData]:
        """Every table, those of the figures' numbers included."""
        for section in self.sections:
            for part in section.parts:
                if isinstance(part, TableData):
                    yield part
                elif isinstance(part, ClaimVerdict) and part.evidence is not None:
                    yield part.evidence
        yield from map(chart_sheet, self.charts)


def report_of(run: Run) -> ReportContent:
    """Make the report of a run."""
    study = Study.of(run)
    found = (module.section(study) for module in SECTIONS)
    return ReportContent(study, headline(study), tuple(section for section in found if section is not None))
