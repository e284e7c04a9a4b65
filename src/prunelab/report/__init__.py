"""Reports: what a run found, for people."""

from prunelab.report.writing import write_report

__all__ = ["write_report"]
