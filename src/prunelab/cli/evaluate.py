"""`prunelab evaluate` and `prunelab throughput`: measure one model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table as RichTable

from prunelab.cli.options import (
    AllowCodeExecution,
    AllowUntrainedPunkt,
    DatasetsRoot,
    Device,
    Dtype,
    Memory,
    Model,
    Overwrite,
    RuntimeName,
    Shots,
    SuiteNames,
    counts,
)
from prunelab.cli.terminal import app, bar, figure, out
from prunelab.errors import InvalidRequest
from prunelab.io.atomic_write import write_text


@app.command()
def evaluate(
    model: Model,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="repeatable; text:FILE is the perplexity of any text")
    ] = None,
    suite: SuiteNames = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file to write the measurements to")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="only so many documents, a subject where there are any")
    ] = None,
    shots: Shots = None,
    chat_template: Annotated[
        Literal["auto", "always", "never"], typer.Option(help="for prompts; auto: for IFEval where there is one")
    ] = "auto",
    allow_untrained_punkt: AllowUntrainedPunkt = False,
    allow_code_execution: AllowCodeExecution = False,
    completions: Annotated[int, typer.Option(min=1, help="HumanEval's, of each problem")] = 5,
    temperature: Annotated[float, typer.Option(min=0.0, help="of HumanEval's completions; 0 is greedy")] = 0.8,
    seed: Annotated[int, typer.Option(help="of what is drawn; with 0 the shots are those that lm-eval draws")] = 0,
    tokens_a_batch: Annotated[int | None, typer.Option(min=1, help="by default what the memory holds")] = None,
    window: Annotated[int, typer.Option(min=2, help="tokens a perplexity window, cut to the context")] = 2048,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    datasets_root: DatasetsRoot = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure a model, whole or pruned."""
    from prunelab.evaluation.benchmarks import EvaluationSettings
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.evaluation.runner import benchmark_tasks
    from prunelab.pocket.data import data_root

    names, suites_limit = expand(suite or [], benchmark or [])
    if not names:
        raise InvalidRequest("nothing to evaluate: give --benchmark NAME or --suite NAME (see `prunelab list`)")
    settings = EvaluationSettings(
        limit=limit or suites_limit,
        chat_template=chat_template,
        allow_untrained_punkt=allow_untrained_punkt,
        allow_code_execution=allow_code_execution,
        completions=completions,
        temperature=temperature,
        window=window,
        seed=seed,
        tokens_a_batch=tokens_a_batch,
        datasets_root=data_root(datasets_root, [model]),
    )
    _evaluate(model, benchmark_tasks(names, settings, counts(shots)), out_file, (device, dtype, memory), overwrite)


@app.command()
def throughput(
    model: Model,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file to write the measurements to")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(min=2)] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="the median of so many runs")] = 5,
    runtime: RuntimeName = "eager",
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure speed and size at batch size 1."""
    from prunelab.evaluation.benchmarks import EvaluationSettings
    from prunelab.evaluation.runner import benchmark_tasks

    settings = EvaluationSettings(prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats, runtime=runtime)
    _evaluate(model, benchmark_tasks(["throughput"], settings), out_file, (device, dtype, memory), overwrite)


def _evaluate(
    name: str,
    runs: Sequence[Any],
    out_file: Path | None,
    placement: tuple[str | None, str | None, str | None],
    overwrite: bool,
) -> None:
    from prunelab.evaluation.runner import checked_model, dense_cell
    from prunelab.evaluation.runner import evaluate as run
    from prunelab.io.outputs import is_measurements
    from prunelab.io.paths import require_output_file
    from prunelab.models.memory import parse_memory
    from prunelab.models.offloading import OffloadedModel, load_offloaded

    if out_file is not None:
        require_output_file(out_file, overwrite, is_measurements, "a file of measurements")
    device, dtype, memory = placement
    model = checked_model(runs, name, partial(load_offloaded, device=device, dtype=dtype, memory=parse_memory(memory)))
    if isinstance(model, OffloadedModel):
        out.print(f"{model.name} does not fit {'--memory' if memory else 'what is free'}: parts of it stay on the disk")
    measurements = []
    for benchmark, settings in runs:
        with bar(benchmark.name, 1) as progress:
            measurements += run(model, dense_cell(model), benchmark, settings, progress).measurements
    _print_measurements(measurements, out_file)
    if out_file is not None:
        rows = [m.row() for m in measurements]
        write_text(out_file, json.dumps(rows, indent=1) + "\n")
        out.print(f"written to {out_file}")


def _print_measurements(measurements: Sequence[Any], out_file: Path | None) -> None:
    """The figures as a table, single subjects left out, and what was not as usual below."""
    shown = [m for m in measurements if "/" not in m.group]
    table = RichTable("benchmark", "shots", "metric", "value", "± standard error", "n")
    for m in shown:
        error = "" if m.standard_error is None else f"{m.standard_error:.3g}"
        shots = "" if m.shots is None else str(m.shots)
        table.add_row(m.benchmark, shots, f"{m.metric} {m.group}".strip(), figure(m.value), error, str(m.n))
    out.print(table)
    if limit := measurements[0].details["limit"]:
        out.print(f"limited to {limit} documents of each benchmark, and of each subject where there are any")
    for m in measurements:
        if m.primary and (remarks := _remarks(m.details)):
            out.print(f"{m.benchmark}: {'; '.join(remarks)}")
    if len(shown) < len(measurements) and out_file is None:
        out.print(f"{len(measurements) - len(shown)} figures of single subjects are not shown: give --out FILE.json")


def _remarks(details: dict[str, Any]) -> list[str]:
    """What makes a figure differ from others'."""
    remarks = {
        f"{details.get('truncated')} requests were longer than the context and lost tokens": details.get("truncated"),
        "shots drawn from the validation split, the train split being absent": details.get("shots_from_validation"),
        f"{details.get('larger than any float')} left out, being larger than any float": details.get(
            "larger than any float"
        ),
        f"{details.get('not_official')} over both splits are not the official scorer's": details.get("not_official"),
        f"intersentence {details.get('intersentence')}": details.get("intersentence"),
        f"{details.get('beyond context')} questions were with their images longer than the context": details.get(
            "beyond context"
        ),
        f"images that could not be shown: {details.get('unusable images')}": details.get("unusable images"),
    }
    return [remark for remark, holds in remarks.items() if holds]
