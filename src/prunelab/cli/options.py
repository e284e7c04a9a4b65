"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from prunelab.errors import InvalidRequest
from prunelab.io.bounds import SHOTS

Model = Annotated[str, typer.Argument(help="a checkpoint's folder, an id on the hub, or a pocket model")]
Device = Annotated[str | None, typer.Option(help="cuda, cpu, ...; the best there is by default")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the checkpoint's own by default")]
DatasetsRoot = Annotated[
    Path | None, typer.Option(help="folder with copies of the hub's data sets; `pocket` for the miniatures")
]
SuiteNames = Annotated[list[str] | None, typer.Option(help="repeatable; see `prunelab list suites`")]
Shots = Annotated[str | None, typer.Option(help="examples in the prompt; several, such as 0,5, are each measured")]
AllowUntrainedPunkt = Annotated[
    bool, typer.Option("--allow-untrained-punkt", help="accepted, without effect any more", hidden=True)
]
AllowCodeExecution = Annotated[
    bool, typer.Option("--allow-code-execution", help="let HumanEval run generated programs, in a cage")
]
RuntimeName = Annotated[
    Literal["eager", "compiled"], typer.Option(help="how throughput runs models: as they are, or compiled")
]
Memory = Annotated[
    str | None,
    typer.Option(help="what a model may take, such as 8GB; what is free by default. Larger ones stay on disk"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the output where it exists")]


def counts(shots: str | None) -> list[int]:
    """The numbers in `0,5`."""
    parts = [part.strip() for part in (shots or "").split(",") if part.strip()]
    if not all(part.isdecimal() and len(part) <= 9 and SHOTS.holds(int(part)) for part in parts):
        raise InvalidRequest(f"--shots {shots} is not possible: give numbers of examples from 0, such as 0,5")
    return [int(part) for part in parts]
