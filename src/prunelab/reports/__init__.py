"""Reports: a run's results as a page, as Markdown, and as tables and figures."""

from prunelab.reports.write import write_report

__all__ = ["write_report"]
