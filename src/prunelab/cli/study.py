"""`prunelab study`: the whole grid."""

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
    RuntimeName,
    Shots,
    SuiteNames,
    counts,
)
from prunelab.cli.terminal import app, err, out
from prunelab.errors import InvalidRequest
from prunelab.io.terminal import labelled


@app.command()
def study(
    config: Annotated[Path | None, typer.Argument(help="a YAML file; options override it")] = None,
    model: Annotated[list[str] | None, typer.Option(help="repeatable")] = None,
    method: Annotated[list[str] | None, typer.Option(help="repeatable")] = None,
    ratio: Annotated[list[float] | None, typer.Option(help="repeatable")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="repeatable")] = None,
    suite: SuiteNames = None,
    shots: Shots = None,
    seed: Annotated[list[int] | None, typer.Option(help="repeatable")] = None,
    chat_template: Annotated[Literal["auto", "always", "never"] | None, typer.Option(help="for prompts")] = None,
    allow_untrained_punkt: AllowUntrainedPunkt = False,
    allow_code_execution: AllowCodeExecution = False,
    completions: Annotated[int | None, typer.Option(min=1, help="HumanEval's, of each problem")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="of HumanEval's completions")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="wikitext2, c4, textvqa (images with text), or a .txt, .jsonl or .json file")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="calibration samples")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="tokens a sample")] = None,
    limit: Annotated[int | None, typer.Option(help="only so many documents a benchmark")] = None,
    runtime: RuntimeName | None = None,
    window: Annotated[int | None, typer.Option(help="tokens a perplexity window")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="the run's folder; a study goes on where it was")
    ] = None,
    tracker: Annotated[list[str] | None, typer.Option(help="mlflow or wandb; repeatable")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what is done, what is missing and what it costs; compute nothing")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"] | None, typer.Option(help="where cells run: here, or as tasks of Ray")
    ] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; without one, Ray is started here")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="cells at once, where Ray is started here")] = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    datasets_root: DatasetsRoot = None,
) -> None:
    """Prune a model every way, measure every cut, and report what was lost; by default, the pocket study."""
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
    given = {
        "models": model, "methods": method, "ratios": ratio, "benchmarks": benchmark, "suites": suite, "seeds": seed,
        "limit": limit, "window": window, "runtime": runtime, "shots": counts(shots), "chat_template": chat_template,
        "allow_untrained_punkt": allow_untrained_punkt, "allow_code_execution": allow_code_execution,
        "completions": completions, "out": out_folder, "device": device, "dtype": dtype, "memory": memory,
        "datasets_root": datasets_root, "trackers": tracker, "engine": engine,
    }  # fmt: skip
    fields.update({key: value for key, value in given.items() if not (value is None or value is False or value == [])})
    if temperature is not None:  # 0 is one, too
        fields["temperature"] = temperature
    if config is None and all(checkpoint_of(name) for name in model or []):
        study_config({**fields, "models": model or ["pocket-llama"]})  # what is impossible by itself is said at once
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
        written = fields.get("calibration") or {}
        fields["calibration"] = {**({"corpus": written} if isinstance(written, str) else written), **chosen}
    of_ray = {key: value for key, value in {"address": address, "workers": workers}.items() if value is not None}
    if of_ray:
        fields["ray"] = {**(fields.get("ray") or {}), **of_ray}
    resolved = study_config(fields, str(config) if config is not None else "the study", config)
    if of_ray and resolved.engine != "ray":
        raise InvalidRequest(f"{' and '.join(f'--{key}' for key in of_ray)} is for cells on Ray: give --engine ray")
    if dry_run:
        _print_dry_run(resolved)
        return
    view = LiveView(out) if out.is_terminal else PlainView(out.print)
    run = run_study(resolved, view=view)
    write_report(run)
    _print_results(main_table(run.measurements, run.differences))
    out.print(f"{run.folder}/results.csv holds every figure, {run.folder}/report/index.html the report")
    if (command := _next_command(run)) is not None:
        out.print(f"which cut to take, and the command that makes it: {command}")
    if run.failures:
        err.print(labelled(f"{len(run.failures)} cells failed:", "red", f"{run.folder}/failures.json says why"))
        raise typer.Exit(1 if any(f.fault for f in run.failures) else 2)


def _next_command(run: Any) -> str | None:
    """`prunelab recommend` for the run, where there is a cut to choose; random ones are baselines."""
    from prunelab.analysis.recommend import KEEP
    from prunelab.pruning.methods import methods

    models = {m.model for m in run.measurements}
    cut = [m.model for m in run.measurements if m.method in methods and not methods[m.method].is_random]
    if not cut:
        return None
    words = ["prunelab", "recommend", str(run.folder), *(["--model", cut[0]] if len(models) > 1 else [])]
    return shlex.join([*words, "--keep", f"{KEEP:.0%}"])


def _print_results(table: Any) -> None:
    """The main table; whole lines where there is no terminal, for logs."""
    if not out.is_terminal:
        typer.echo(table.markdown())
        return
    shown = RichTable(*table.columns)
    for row in table.rows:
        shown.add_row(*row)
    out.print(shown)


def _print_dry_run(config: Any) -> None:
    """The grid as a table, and what all of it costs."""
    from prunelab.studies.dry_run import dry_run

    found = dry_run(config)
    table = RichTable("cell", "done", "missing", "tokens to compute", "weights")
    for one in found.cells:
        total = len(one.done) + len(one.missing)
        tokens = _count(one.tokens, known=not one.unknown) if one.missing else "none"
        weights = "not known" if one.weight_bytes is None else f"{one.weight_bytes / 1e9:.3g} GB"
        table.add_row(one.cell.label, f"{len(one.done)} of {total}", ", ".join(one.missing), tokens, weights)
    out.print(table)
    for model, calibrating in found.calibration_tokens.items():
        out.print(f"{model}: {calibrating:,} tokens to calibrate on")
    every = sum(one.tokens for one in found.cells) + sum(found.calibration_tokens.values())
    done = sum(len(one.done) for one in found.cells)
    missing = sum(len(one.missing) for one in found.cells)
    known = not any(one.unknown for one in found.cells)
    out.print(
        f"{len(found.cells)} cells, {done + missing} benchmarks: {done} measured, {missing} missing, "
        f"{_count(every, known)} tokens to compute (prompts, choices and answers as long as expected)"
    )
    for note in found.notes:
        err.print(labelled("note:", "yellow", note))


def _count(tokens: int, known: bool) -> str:
    if known:
        return f"{tokens:,}"
    return f"more than {tokens:,}" if tokens else "not known"
