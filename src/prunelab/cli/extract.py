"""`prunelab extract-language-model`: take the language model out of a vision-language model, or put it back."""

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
        str | None, typer.Option(help="vision-language model to put MODEL, a language model, back into")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Save the language model of a vision-language model as a separate checkpoint; with --into, put one back."""
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
    loaded = load_model(model, device=device, dtype=dtype)
    inner_plan = None
    if into is None:
        result = reconnect.extract_language_model(loaded)
    else:
        vision_model = load_model(into, device=device, dtype=dtype)
        result = reconnect.reconnect(loaded, vision_model)
        inner_plan = None if plan is None else reconnect.plan_inside(plan, vision_model)
    with save_model(result, out_folder, overwrite) as temporary:
        if inner_plan is not None:
            (temporary / "README.md").write_text(model_card(result, inner_plan, command()), encoding="utf-8")
        if plan is not None:
            (inner_plan or plan).save(temporary / PLAN_FILE)
    out.print(f"{result.decoder.parameters:,} parameters, {len(result.decoder.shapes)} blocks, written to {out_folder}")
    if into is None:
        out.print(
            f"next: prunelab prune {out_folder} --out DIR, then "
            f"put DIR back: prunelab extract-language-model DIR --into {model} --out OUT"
        )
