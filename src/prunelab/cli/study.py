"""`prunelab study`: measure a grid of models, methods, ratios and benchmarks."""

from __future__ import annotations

import shlex
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
    Shots,
    SuiteNames,
    counts,
)
from prunelab.cli.terminal import app, err, out
from prunelab.errors import InvalidRequest
from prunelab.io.terminal import labelled


@app.command()
def study(
    config: Annotated[Path | None, typer.Argument(help="YAML file with the configuration; options override it")] = None,
    model: Annotated[list[str] | None, typer.Option(help="model to prune, repeatable")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="pruning method, repeatable (see `prunelab list methods`)")
    ] = None,
    ratio: Annotated[
        list[float] | None, typer.Option(help="share of the blocks' projection weights to remove, repeatable")
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="benchmark to run, repeatable (see `prunelab list benchmarks`)")
    ] = None,
    suite: SuiteNames = None,
    shots: Shots = None,
    seed: Annotated[list[int] | None, typer.Option(help="random seed, repeatable")] = None,
    chat_template: Annotated[
        Literal["auto", "always", "never"] | None,
        typer.Option(help="apply the tokenizer's chat template to prompts; auto: only for IFEval"),
    ] = None,
    allow_untrained_punkt: AllowUntrainedPunkt = False,
    allow_code_execution: AllowCodeExecution = False,
    completions: Annotated[int | None, typer.Option(min=1, help="number of HumanEval completions per problem")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="sampling temperature of HumanEval completions")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="calibration text: wikitext2, c4, textvqa (images with text), or a .txt, .jsonl or .json file"
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="number of calibration samples")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="tokens per calibration sample")] = None,
    limit: Annotated[int | None, typer.Option(help="maximum number of documents per benchmark")] = None,
    runtime: Annotated[
        Literal["eager", "compiled"] | None,
        typer.Option(help="run models eagerly or compiled with torch.compile when measuring throughput"),
    ] = None,
    window: Annotated[int | None, typer.Option(help="tokens per perplexity window")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="folder of the run; an interrupted study resumes from it")
    ] = None,
    tracker: Annotated[list[str] | None, typer.Option(help="send the figures to mlflow or wandb; repeatable")] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="print what is done, what is missing and what it costs, without computing anything"
        ),
    ] = False,
    engine: Annotated[Literal["local", "ray"] | None, typer.Option(help="run in this process, or as Ray tasks")] = None,
    address: Annotated[
        str | None, typer.Option(help="address of a Ray cluster; without it, Ray is started on this machine")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="number of models to measure in parallel when Ray is started on this machine"),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    datasets_root: DatasetsRoot = None,
) -> None:
    """Prune models with every method and ratio, measure each result, and report what was lost.

    Without a configuration or a model, a small bundled model is studied on miniature benchmarks.
    """
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.models.bundled import checkpoint_of
    from prunelab.pocket.study import pocket_study
    from prunelab.reports import write_report
    from prunelab.reports.tables import main_table
    from prunelab.studies.config import read_config, study_config
    from prunelab.studies.progress import PlainView
    from prunelab.studies.runner import run_study
    from prunelab.studies.terminal_view import LiveView

    fields: dict[str, Any] = read_config(config) if config is not None else {}
    overrides = {
        "models": model, "methods": method, "ratios": ratio, "benchmarks": benchmark, "suites": suite, "seeds": seed,
        "limit": limit, "window": window, "runtime": runtime, "shots": counts(shots), "chat_template": chat_template,
        "allow_untrained_punkt": allow_untrained_punkt, "allow_code_execution": allow_code_execution,
        "completions": completions, "out": out_folder, "device": device, "dtype": dtype, "memory": memory,
        "datasets_root": datasets_root, "trackers": tracker, "engine": engine,
    }  # fmt: skip
    fields.update(
        {key: value for key, value in overrides.items() if not (value is None or value is False or value == [])}
    )
    if temperature is not None:  # 0 is a valid temperature
        fields["temperature"] = temperature
    if config is None and all(checkpoint_of(name) for name in model or []):
        study_config({**fields, "models": model or ["pocket-llama"]})  # refuse invalid options early
        pocket, left_out = pocket_study(model or ["pocket-llama"], expand(suite or (), benchmark or ())[0])
        fields = {**pocket, **fields}
        for line in left_out:
            err.print(labelled("note:", "yellow", line))
    if suite and not benchmark:
        fields.pop("benchmarks", None)
    if benchmark and not suite:
        fields.pop("suites", None)
    text = {"corpus": calibration, "samples": samples, "sequence_length": sequence_length}
    chosen = {key: value for key, value in text.items() if value is not None}
    if chosen:
        file_value = fields.get("calibration") or {}
        fields["calibration"] = {**({"corpus": file_value} if isinstance(file_value, str) else file_value), **chosen}
    ray_options = {key: value for key, value in {"address": address, "workers": workers}.items() if value is not None}
    if ray_options:
        fields["ray"] = {**(fields.get("ray") or {}), **ray_options}
    resolved = study_config(fields, str(config) if config is not None else "the study", config)
    if ray_options and resolved.engine != "ray":
        raise InvalidRequest(
            f"{' and '.join(f'--{key}' for key in ray_options)} can only be used with Ray: add --engine ray"
        )
    if dry_run:
        _print_dry_run(resolved)
        return
    view = LiveView(out) if out.is_terminal else PlainView(out.print)
    run = run_study(resolved, view=view)
    write_report(run)
    _print_results(main_table(run.measurements, run.differences))
    out.print(f"figures: {run.folder}/results.csv; report: {run.folder}/report/index.html")
    if (command := _next_command(run)) is not None:
        out.print(f"next, to choose a pruned model: {command}")
    if run.failures:
        err.print(labelled(f"{len(run.failures)} cells failed:", "red", f"see {run.folder}/failures.json"))
        raise typer.Exit(1 if any(f.fault for f in run.failures) else 2)


def _next_command(run: Any) -> str | None:
    """The `prunelab recommend` command for the run; None if it only has random baselines to choose from."""
    from prunelab.analysis.recommend import KEEP
    from prunelab.pruning.methods import methods

    models = {m.model for m in run.measurements}
    cut = [m.model for m in run.measurements if m.method in methods and not methods[m.method].is_random]
    if not cut:
        return None
    words = ["prunelab", "recommend", str(run.folder), *(["--model", cut[0]] if len(models) > 1 else [])]
    return shlex.join([*words, "--keep", f"{KEEP:.0%}"])


def _print_results(table: Any) -> None:
    """Print the main table; without a terminal as Markdown, so that logs hold unbroken lines."""
    if not out.is_terminal:
        typer.echo(table.markdown())
        return
    shown = RichTable(*table.columns)
    for row in table.rows:
        shown.add_row(*row)
    out.print(shown)


def _print_dry_run(config: Any) -> None:
    """Print the grid as a table, and its total cost."""
    from prunelab.studies.dry_run import dry_run

    estimate = dry_run(config)
    table = RichTable("cell", "done", "missing", "tokens to compute", "weights")
    for cost in estimate.cells:
        total = len(cost.done) + len(cost.missing)
        tokens = _count(cost.tokens, known=not cost.unknown) if cost.missing else "none"
        weights = "unknown" if cost.weight_bytes is None else f"{cost.weight_bytes / 1e9:.3g} GB"
        table.add_row(cost.cell.label, f"{len(cost.done)} of {total}", ", ".join(cost.missing), tokens, weights)
    out.print(table)
    for model, calibrating in estimate.calibration_tokens.items():
        out.print(f"{model}: {calibrating:,} calibration tokens")
    total_tokens = sum(cost.tokens for cost in estimate.cells) + sum(estimate.calibration_tokens.values())
    done = sum(len(cost.done) for cost in estimate.cells)
    missing = sum(len(cost.missing) for cost in estimate.cells)
    known = not any(cost.unknown for cost in estimate.cells)
    out.print(
        f"{len(estimate.cells)} cells, {done + missing} benchmarks: {done} measured, {missing} missing, "
        f"{_count(total_tokens, known)} tokens to compute (prompts, choices and answers of expected length)"
    )
    for note in estimate.notes:
        err.print(labelled("note:", "yellow", note))


def _count(tokens: int, known: bool) -> str:
    if known:
        return f"{tokens:,}"
    return f"more than {tokens:,}" if tokens else "unknown"
