"""`prunelab doctor`: check the installation; `prunelab doctor MODEL`: inspect a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column
from rich.table import Table as RichTable

from prunelab.cli.options import DatasetsRoot
from prunelab.cli.terminal import app, out


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            help="checkpoint to inspect (folder, Hugging Face model id or pocket model) instead of the installation"
        ),
    ] = None,
    datasets_root: DatasetsRoot = None,
) -> None:
    """Check what is installed and reachable, with a remedy for what is missing; or inspect a checkpoint."""
    from prunelab.api.doctor import examine, examine_model

    table = RichTable(*(Column(heading, overflow="fold") for heading in ("check", "result", "remedy")))
    for finding in examine(datasets_root) if model is None else examine_model(model):
        table.add_row(finding.what, finding.found, finding.remedy)
    out.print(table)
