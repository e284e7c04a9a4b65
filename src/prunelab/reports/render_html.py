"""The report as one self-contained HTML page, which loads no other file."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prunelab.reports.figures.data import chart_sheet
from prunelab.reports.figures.svg import marker_svg, panel_svg
from prunelab.reports.rows import STEPS, table_rows, text_columns

if TYPE_CHECKING:
    from prunelab.reports.content import ReportContent


def page(report: ReportContent) -> str:
    """The page's HTML. All text that does not come from the templates is escaped."""
    environment = Environment(
        loader=PackageLoader("prunelab.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {
        "panel_svg": panel_svg,
        "marker_svg": marker_svg,
        "chart_sheet": chart_sheet,
        "table_rows": table_rows,
        "text_columns": text_columns,
        "shades": STEPS,
    }
    return environment.get_template("page.html.j2").render(
        report=report,
        headline=report.headline,
        models=report.study.grid.models,
        style=_own("style.css"),
        script=_own("script.js"),
    )


def _own(name: str) -> Markup:
    """A file of the package, included in the page without escaping."""
    return Markup(files("prunelab.reports").joinpath("templates", name).read_text(encoding="utf-8"))
