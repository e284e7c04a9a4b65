"""Reports: a run's results as a page, as Markdown, and as tables and figures."""

from typing import TYPE_CHECKING

from prunelab.io.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunelab.reports.write import write_report

__all__ = ["write_report"]

__getattr__ = lazy_attributes(__name__, {"write_report": "prunelab.reports.write"})
