"""`prunelab export`: write a checkpoint in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from prunelab.cli.options import Model, Overwrite
from prunelab.cli.terminal import app, bar, out


@app.command()
def export(
    model: Model,
    out_file: Annotated[Path, typer.Option("--out", help="file to write")],
    to: Annotated[Literal["gguf"], typer.Option(help="output format; gguf is a single file for llama.cpp")] = "gguf",
    type_: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"], typer.Option("--type", help="number format of the weight matrices")
    ] = "f16",
    pad_widths: Annotated[
        bool,
        typer.Option(
            "--pad-widths",
            help="pad every block with zeros to the widest one (Gemma-2 with different widths per block)",
        ),
    ] = False,
    allow_other_tokens: Annotated[
        bool,
        typer.Option("--allow-other-tokens", help="export even if llama.cpp tokenizes some texts differently"),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a dense or pruned model to another program's format."""
    from prunelab.checkpoint.gguf.export import check_without_weights, export_gguf, require_gguf
    from prunelab.io.outputs import is_gguf
    from prunelab.io.paths import require_output_file
    from prunelab.models.loading import inspected, load_inspected, load_tokenizer

    require_gguf()
    require_output_file(out_file, overwrite, is_gguf, "a GGUF file")
    inspection = inspected(model)
    tokenizer = load_tokenizer(inspection.path, inspection.config)
    check_without_weights(inspection, tokenizer, allow_other_tokens=allow_other_tokens)
    loaded = load_inspected(inspection, device="cpu")
    with bar("writing", 1) as progress:
        exported = export_gguf(
            loaded, out_file, type_, pad_widths=pad_widths, allow_other_tokens=allow_other_tokens, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    out.print(
        f"written to {exported.path}: {exported.size / 1e6:,.1f} MB, {type_}, "
        f"llama.cpp architecture {exported.architecture}"
    )
    for note in exported.notes:
        out.print(f"note: {note}")
    out.print(f"next: llama-server -m {exported.path}")
