"""`prunelab merge`: merge two runs into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from prunelab.cli.results import RunFolder
from prunelab.cli.terminal import app, out


@app.command()
def merge(
    run_a: RunFolder,
    run_b: RunFolder,
    out_folder: Annotated[Path, typer.Option("--out", help="folder to write the merged run to")],
    prefer: Annotated[
        Literal["a", "b"] | None,
        typer.Option(help="run whose figures to keep where the two runs contradict each other"),
    ] = None,
) -> None:
    """Merge two runs into a new folder; contradicting figures are an error unless --prefer is given."""
    from prunelab.io.atomic_write import refuse_existing
    from prunelab.studies.merge import merge_runs
    from prunelab.studies.run import load_run

    refuse_existing(out_folder, False, folder=True)
    a, b = load_run(run_a), load_run(run_b)
    run = merge_runs(a, b, out_folder, {"a": a, "b": b, None: None}[prefer])
    cells = len({m.plan or m.model for m in run.measurements})
    out.print(f"merged into {out_folder}: {cells} cells, {len(run.measured)} benchmark results")
    out.print(f"next: prunelab report {out_folder}")
