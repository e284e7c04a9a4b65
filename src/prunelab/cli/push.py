"""`prunelab push`: upload a pruned checkpoint to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.terminal import app, out
from prunelab.errors import InvalidRequest


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder written by `prunelab prune --out`")],
    to: Annotated[str, typer.Option(help="repository on the hub, as USER/NAME")],
    run: Annotated[
        Path | None, typer.Option(help="run that measured this pruned model; adds its figures to the model card")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="hub id of the base model, if the plan does not record it")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="licence of the base model, if no model card states it")
    ] = None,
    accept_license: Annotated[
        bool,
        typer.Option("--accept-license", help="confirm that you have read a restrictive licence and comply with it"),
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="make the repository private")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the files to upload without uploading them")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the weights and the card of an existing repository")
    ] = False,
) -> None:
    """Upload a pruned checkpoint to the Hugging Face Hub, with its card, plan and figures."""
    from prunelab.studies.hub_upload import prepare_upload, upload
    from prunelab.studies.run import load_run

    loaded_run = load_run(run) if run is not None else None
    prepared = prepare_upload(folder, to, run=loaded_run, base=base_model, licence=license_)
    out.print(f"{to}: base {prepared.base}, licence {prepared.licence.title}")
    unconfirmed = prepared.demand and not accept_license
    if prepared.demand and (dry_run or not unconfirmed):
        out.print(f"note: {prepared.demand}{', then give --accept-license' if unconfirmed else ''}")
    if dry_run:
        for name, size in prepared.files:
            out.print(f"  {name}  {size:,} bytes")
        out.print("dry run: nothing was uploaded")
        return
    if unconfirmed:
        raise InvalidRequest(f"{prepared.demand}, then give --accept-license")
    out.print(f"uploaded to {upload(prepared, private=private, overwrite=overwrite)}")
