"""Reports: what a run found, for people."""

from prunelab.reports.write import write_report

__all__ = ["write_report"]
