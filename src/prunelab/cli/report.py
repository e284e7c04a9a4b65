"""`prunelab report`: write the report of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.terminal import app, out


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder written by `prunelab study --out`")],
) -> None:
    """Write a run's report again: a self-contained HTML page, tables and figures."""
    from prunelab.reports import write_report
    from prunelab.studies.run import load_run

    write_report(load_run(run))
    folder = run / "report"
    out.print(f"report: {folder / 'index.html'}; tables and figures: {folder}")
