"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from prunelab.errors import InvalidRequest
from prunelab.io.bounds import SHOTS

Model = Annotated[str, typer.Argument(help="checkpoint folder, Hugging Face model id, or pocket model")]
Device = Annotated[
    str | None, typer.Option(help="device to run on, such as cuda or cpu; by default the best available")
]
Dtype = Annotated[
    str | None, typer.Option(help="number format: float32, bfloat16 or float16; by default that of the checkpoint")
]
DatasetsRoot = Annotated[
    Path | None,
    typer.Option(
        help="folder with local copies of data sets (see `prunelab fetch`); `pocket` for the miniature benchmarks"
    ),
]
SuiteNames = Annotated[list[str] | None, typer.Option(help="benchmark suite, repeatable (see `prunelab list suites`)")]
Shots = Annotated[
    str | None,
    typer.Option(help="number of few-shot examples in the prompt; with several, such as 0,5, each is measured"),
]
AllowUntrainedPunkt = Annotated[
    bool, typer.Option("--allow-untrained-punkt", help="accepted for compatibility; has no effect", hidden=True)
]
AllowCodeExecution = Annotated[
    bool, typer.Option("--allow-code-execution", help="allow HumanEval to run generated programs in a sandbox")
]
RuntimeName = Annotated[
    Literal["eager", "compiled"],
    typer.Option(help="run models eagerly or compiled with torch.compile when measuring throughput"),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="memory limit per model, such as 8GB; by default the free memory. Larger models are read from disk"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace existing output")]


def counts(shots: str | None) -> list[int]:
    """Parse numbers of few-shot examples, such as `0,5`."""
    parts = [part.strip() for part in (shots or "").split(",") if part.strip()]
    if not all(part.isdecimal() and len(part) <= 9 and SHOTS.holds(int(part)) for part in parts):
        raise InvalidRequest(f"--shots {shots} is not possible: give whole numbers from 0 to 1,000, such as 0,5")
    return [int(part) for part in parts]
