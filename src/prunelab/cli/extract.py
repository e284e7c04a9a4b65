"""`prunelab extract-language-model`: a model that sees and the language model inside it, apart and together again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.options import Device, Dtype, Model, Overwrite
from prunelab.cli.terminal import app, command, out


@app.command("extract-language-model")
def extract_language_model(
    model: Model,
    out_folder: Annotated[Path, typer.Option("--out", help="folder to write the checkpoint to")],
    into: Annotated[
        str | None, typer.Option(help="put MODEL, a language model, back into this model that sees")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Take the language model out of a model that sees, as a checkpoint of its own; with --into, put one back."""
    from prunelab.checkpoint import vision_language as reconnect
    from prunelab.checkpoint.card import model_card
    from prunelab.checkpoint.save import PLAN_FILE, save_model
    from prunelab.io.atomic_write import refuse_existing, refuse_input_path
    from prunelab.models.loading import load_model
    from prunelab.pruning.plan import PruningPlan

    refuse_existing(out_folder, overwrite, folder=True)
    refuse_input_path(out_folder, [model, *([] if into is None else [into])])
    plan_file = Path(model) / PLAN_FILE
    plan = PruningPlan.load(plan_file) if plan_file.is_file() else None
    given = load_model(model, device=device, dtype=dtype)
    inside = None
    if into is None:
        made = reconnect.extract_language_model(given)
    else:
        whole = load_model(into, device=device, dtype=dtype)
        made = reconnect.reconnect(given, whole)
        inside = None if plan is None else reconnect.plan_inside(plan, whole)
    with save_model(made, out_folder, overwrite) as aside:
        if inside is not None:
            (aside / "README.md").write_text(model_card(made, inside, command()), encoding="utf-8")
        if plan is not None:
            (inside or plan).save(aside / PLAN_FILE)
    out.print(f"{made.decoder.parameters:,} parameters, {len(made.decoder.shapes)} blocks, written to {out_folder}")
    if into is None:
        out.print(f"next: prunelab prune {out_folder} --out DIR, then back with --into {model}")
