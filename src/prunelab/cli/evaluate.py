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
        list[str] | None,
        typer.Option(
            help="benchmark to run, repeatable (see `prunelab list benchmarks`); text:FILE "
            "measures perplexity on a text file"
        ),
    ] = None,
    suite: SuiteNames = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file to write the measurements to")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="maximum number of documents per benchmark (per subject if the benchmark has subjects)"
        ),
    ] = None,
    shots: Shots = None,
    chat_template: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(
            help="apply the tokenizer's chat template to prompts; auto: only for IFEval, if the tokenizer has one"
        ),
    ] = "auto",
    allow_untrained_punkt: AllowUntrainedPunkt = False,
    allow_code_execution: AllowCodeExecution = False,
    completions: Annotated[int, typer.Option(min=1, help="number of HumanEval completions per problem")] = 5,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="sampling temperature of HumanEval completions; 0 is greedy decoding")
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="random seed; 0 draws the same few-shot examples as lm-eval")] = 0,
    tokens_a_batch: Annotated[
        int | None, typer.Option(min=1, help="maximum tokens per batch; by default as many as fit in memory")
    ] = None,
    window: Annotated[int, typer.Option(min=2, help="tokens per perplexity window, at most the context length")] = 2048,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    datasets_root: DatasetsRoot = None,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate a dense or pruned model on benchmarks."""
    from prunelab.evaluation.benchmarks import EvaluationSettings
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.evaluation.runner import benchmark_tasks
    from prunelab.pocket.data import data_root

    names, suites_limit = expand(suite or [], benchmark or [])
    if not names:
        raise InvalidRequest(
            "nothing to evaluate: give --benchmark NAME or --suite NAME (see `prunelab list benchmarks`)"
        )
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
    prompt_tokens: Annotated[int, typer.Option(min=1, help="tokens in the prompt")] = 128,
    new_tokens: Annotated[int, typer.Option(min=2, help="tokens to generate")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="number of timed runs; the median is reported")] = 5,
    runtime: RuntimeName = "eager",
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the speed and size of a model at batch size 1."""
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
        out.print(
            f"{model.name} does not fit in {'--memory' if memory else 'the free memory'}: parts of it stay on disk"
        )
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
    """Print the figures as a table without single subjects, followed by remarks on unusual conditions."""
    shown = [m for m in measurements if "/" not in m.group]
    table = RichTable("benchmark", "shots", "metric", "value", "± standard error", "n")
    for m in shown:
        error = "" if m.standard_error is None else f"{m.standard_error:.3g}"
        shots = "" if m.shots is None else str(m.shots)
        table.add_row(m.benchmark, shots, f"{m.metric} {m.group}".strip(), figure(m.value), error, str(m.n))
    out.print(table)
    if limit := measurements[0].details["limit"]:
        out.print(f"limited to {limit} documents per benchmark (per subject if the benchmark has subjects)")
    for m in measurements:
        if m.primary and (remarks := _remarks(m.details)):
            out.print(f"{m.benchmark}: {'; '.join(remarks)}")
    if len(shown) < len(measurements) and out_file is None:
        out.print(
            f"{len(measurements) - len(shown)} figures of single subjects are not shown: save them with --out FILE.json"
        )


def _remarks(details: dict[str, Any]) -> list[str]:
    """Conditions under which a figure is not comparable with others."""
    remarks = {
        f"{details.get('truncated')} requests exceeded the context length and were truncated": details.get("truncated"),
        "few-shot examples come from the validation split: there is no train split": details.get(
            "shots_from_validation"
        ),
        f"{details.get('larger than any float')} left out: larger than the largest floating-point number": details.get(
            "larger than any float"
        ),
        f"{details.get('not_official')} over both splits differ from the official scorer": details.get("not_official"),
        f"intersentence {details.get('intersentence')}": details.get("intersentence"),
        f"{details.get('beyond context')} questions exceeded the context length with their images": details.get(
            "beyond context"
        ),
        f"images that could not be used: {details.get('unusable images')}": details.get("unusable images"),
    }
    return [remark for remark, holds in remarks.items() if holds]
