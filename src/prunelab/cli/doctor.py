"""`prunelab doctor`: what is installed, reachable and missing."""

from __future__ import annotations

from rich.table import Table as RichTable

from prunelab.cli.options import DatasetsRoot
from prunelab.cli.terminal import app, out


@app.command()
def doctor(datasets_root: DatasetsRoot = None) -> None:
    """Say what is installed, reachable and missing, and how to get it."""
    from prunelab.api.doctor import examine

    table = RichTable("what", "found", "remedy")
    for finding in examine(datasets_root):
        table.add_row(finding.what, finding.found, finding.remedy)
    out.print(table)
