"""`prunelab doctor`: what is installed, reachable and missing; `prunelab doctor MODEL`: what a checkpoint holds."""

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
        typer.Argument(help="inspect this checkpoint (folder, id on the hub, pocket model) instead of the machine"),
    ] = None,
    datasets_root: DatasetsRoot = None,
) -> None:
    """Say what is installed, reachable and missing, and how to get it; of a model, what its folder holds."""
    from prunelab.api.doctor import examine, examine_model

    table = RichTable(*(Column(heading, overflow="fold") for heading in ("what", "found", "remedy")))
    for finding in examine(datasets_root) if model is None else examine_model(model):
        table.add_row(finding.what, finding.found, finding.remedy)
    out.print(table)
