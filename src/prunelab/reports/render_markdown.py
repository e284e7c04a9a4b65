"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prunelab.io.markup import indented, markdown, markdown_paragraph
from prunelab.reports.elements import (
    AnswerComparison,
    ClaimVerdict,
    Code,
    Figure,
    Listing,
    Part,
    Prose,
    Section,
    TableData,
)
from prunelab.reports.tables import table_of

if TYPE_CHECKING:
    from prunelab.reports.chart import Chart
    from prunelab.reports.content import ReportContent


def report_text(report: ReportContent) -> str:
    """The report's Markdown; folded tables are replaced by the path of their file."""
    top = report.headline
    lines = ["# Pruning study", markdown_paragraph(top.studied)]
    lines += [f"**{markdown(top.finding)}**"] if top.finding else []
    lines += (
        ["\n".join(f"- **{markdown(brief.model)}.** {markdown(' '.join(brief.lines))}" for brief in top.briefs)]
        if top.briefs
        else []
    )
    lines += [f"{top.failed} {'cell' if top.failed == 1 else 'cells'} failed: see *Provenance*."] if top.failed else []
    lines += [_figure(top.chart)] if top.chart is not None else []
    return "\n\n".join([*lines, *map(_section, report.sections)]) + "\n"


def _section(section: Section) -> str:
    return "\n\n".join([f"## {markdown(section.title)}", markdown_paragraph(section.lead), *map(_part, section.parts)])


def _part(part: Part) -> str:
    return _WRITERS[part.kind](part)


def _listing(part: Listing) -> str:
    return f"**{markdown(part.title)}**\n\n" + "\n".join(f"- {markdown_paragraph(line)}" for line in part.lines)


def _finding(part: ClaimVerdict) -> str:
    evidence = f" Evidence: `tables/{part.evidence.name}.md`." if part.evidence is not None else ""
    name, verdict, statement, text, test = map(
        markdown, (part.name, part.verdict, part.statement, part.text, part.test)
    )
    return f"**{name}: {verdict}.** {statement} {text} *Test: {test}*{evidence}"


def _sheet(sheet: TableData) -> str:
    if sheet.folded:
        return f"{markdown_paragraph(sheet.caption)}: `tables/{sheet.name}.md`."
    return f"{markdown_paragraph(sheet.caption)}:\n\n{table_of(sheet).markdown()}"


def _figure(chart: Chart) -> str:
    title = markdown(chart.title)
    return f"![{title}](figures/{chart.name}.svg)\n\n*{title}.* {markdown(chart.caption)}"


def _pair(pair: AnswerComparison) -> str:
    """The models' answers, indented so that no part of them is parsed as Markdown."""
    lines = [f"**{markdown(pair.sample)}** ({markdown(pair.lost)})"]
    lines += [indented(pair.prompt)] if pair.prompt else []
    for answer in pair.answers:
        lines += [f"{markdown_paragraph(answer.who)} ({markdown(answer.verdict)}):", indented(answer.text)]
    return "\n\n".join(lines)


_WRITERS: dict[str, Callable[[Any], str]] = {
    TableData.kind: _sheet,
    Figure.kind: lambda part: _figure(part.chart),
    Prose.kind: lambda part: markdown_paragraph(part.text),
    Code.kind: lambda part: indented(part.text),
    Listing.kind: _listing,
    ClaimVerdict.kind: _finding,
    AnswerComparison.kind: _pair,
}
