"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prunelab.reports.chart import Chart
from prunelab.reports.content import Report
from prunelab.reports.elements import Code, Figure, Finding, Listing, Pair, Part, Prose, Section, Sheet
from prunelab.reports.tables import table_of


def report_text(report: Report) -> str:
    """The report's text; long tables are named where they lie instead of shown."""
    top = report.headline
    lines = ["# Pruning study", top.studied]
    lines += [f"**{top.finding}**"] if top.finding else []
    lines += ["\n".join(f"- **{one.model}.** {' '.join(one.lines)}" for one in top.briefs)] if top.briefs else []
    lines += (
        [f"{top.failed} {'cell' if top.failed == 1 else 'cells'} failed: see *How it was made*."] if top.failed else []
    )
    lines += [_figure(top.chart)] if top.chart is not None else []
    return "\n\n".join([*lines, *map(_section, report.sections)]) + "\n"


def _section(section: Section) -> str:
    return "\n\n".join([f"## {section.title}", section.lead, *map(_part, section.parts)])


def _part(part: Part) -> str:
    return _WRITERS[part.kind](part)


def _listing(part: Listing) -> str:
    return f"**{part.title}**\n\n" + "\n".join(f"- {' '.join(line.split())}" for line in part.lines)


def _finding(part: Finding) -> str:
    evidence = f" The numbers: `tables/{part.evidence.name}.md`." if part.evidence is not None else ""
    return f"**{part.name}: {part.verdict}.** {part.statement} {part.text} *Test: {part.test}*{evidence}"


def _sheet(sheet: Sheet) -> str:
    if sheet.folded:
        return f"{sheet.caption}: `tables/{sheet.name}.md`."
    return f"{sheet.caption}:\n\n{table_of(sheet).markdown()}"


def _figure(chart: Chart) -> str:
    return f"![{chart.title}](figures/{chart.name}.svg)\n\n*{chart.title}.* {chart.caption}"


def _pair(pair: Pair) -> str:
    """What models wrote, indented, so that nothing of it is taken for Markdown."""
    lines = [f"**{pair.sample}** ({pair.lost})"]
    lines += [_indented(pair.prompt)] if pair.prompt else []
    for answer in pair.answers:
        lines += [f"{answer.who} ({answer.verdict}):", _indented(answer.text)]
    return "\n\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


_WRITERS: dict[str, Callable[[Any], str]] = {
    Sheet.kind: _sheet,
    Figure.kind: lambda part: _figure(part.chart),
    Prose.kind: lambda part: part.text,
    Code.kind: lambda part: _indented(part.text),
    Listing.kind: _listing,
    Finding.kind: _finding,
    Pair.kind: _pair,
}
