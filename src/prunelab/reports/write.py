"""Writing the report's files."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prunelab.io.atomic_write import write_text
from prunelab.io.markup import markdown_paragraph
from prunelab.reports.content import report_of
from prunelab.reports.figures.files import write_chart
from prunelab.reports.render_html import page
from prunelab.reports.render_markdown import report_text
from prunelab.reports.tables import csv_of, table_of
from prunelab.studies.run_folder import require_own_paths

if TYPE_CHECKING:
    from prunelab.studies.run import Run


def write_report(run: Run) -> None:
    """Write a run's report into RUN/report.

    `index.html` holds the complete report in one file and `report.md` the same as Markdown; `tables/` holds each table
    as CSV and Markdown, `figures/` each figure as SVG and PNG.

    Raises:
        OutputExists: an output path is a link, or of another type than the file or folder to be written.
    """
    require_own_paths(run.folder)
    with _nothing_collected():
        _write(run)


def _write(run: Run) -> None:
    folder = run.folder / "report"
    report = report_of(run)
    for sheet in report.sheets:
        write_text(folder / "tables" / f"{sheet.name}.csv", csv_of(sheet))
        write_text(
            folder / "tables" / f"{sheet.name}.md",
            f"{markdown_paragraph(sheet.caption)}\n\n{table_of(sheet).markdown()}\n",
        )
    for chart in report.charts:
        write_chart(chart, folder / "figures")
    write_text(folder / "report.md", report_text(report))
    write_text(folder / "index.html", page(report))


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Disable cyclic garbage collection: a large report allocates several hundred thousand long-lived objects, and
    repeated collections would take about 10 % of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
