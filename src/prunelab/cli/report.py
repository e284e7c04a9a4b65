"""`prunelab report`: the report of a run, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.terminal import app, out


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder that `prunelab study --out` wrote")],
) -> None:
    """Make a run's report again: a page to read and to send, tables and figures."""
    from prunelab.reports import write_report
    from prunelab.studies.run import load_run

    write_report(load_run(run))
    folder = run / "report"
    out.print(f"{folder / 'index.html'} is the report; tables and figures are beside it in {folder}")
