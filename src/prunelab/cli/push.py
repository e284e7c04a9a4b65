"""`prunelab push`: a checkpoint to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.terminal import app, out
from prunelab.errors import InvalidRequest


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder that `prunelab prune --out` wrote")],
    to: Annotated[str, typer.Option(help="repository on the hub, user/name")],
    run: Annotated[Path | None, typer.Option(help="a run that measured this cut; its figures go into the card")] = None,
    base_model: Annotated[str | None, typer.Option(help="the base's id on the hub, if the plan has none")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="the base's licence, if no card says it")] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="you have read a restrictive licence and keep to it")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="for your eyes only")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be sent; send nothing")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace weights and card where the name is taken")
    ] = False,
) -> None:
    """Send a pruned checkpoint to the hub, with its card, plan and figures."""
    from prunelab.studies.hub_upload import prepare_upload, upload
    from prunelab.studies.run import load_run

    found = load_run(run) if run is not None else None
    parcel = prepare_upload(folder, to, run=found, base=base_model, licence=license_)
    out.print(f"{to}: base {parcel.base}, licence {parcel.licence.title}")
    refused = parcel.demand and not accept_license
    if parcel.demand and (dry_run or not refused):
        out.print(f"note: {parcel.demand}{', then give --accept-license' if refused else ''}")
    if dry_run:
        for name, size in parcel.files:
            out.print(f"  {name}  {size:,} bytes")
        out.print("nothing was sent")
        return
    if refused:
        raise InvalidRequest(f"{parcel.demand}, then give --accept-license")
    out.print(f"sent to {upload(parcel, private=private, overwrite=overwrite)}")
