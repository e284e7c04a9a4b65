"""The command line: parse, call, print."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from prunelab.errors import InvalidRequest, PrunelabError
from prunelab.files import write_text

app = typer.Typer(
    help="Prune a language model without training it, and see honestly what was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# A pipe has no width: tables get one that holds them.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Argument(help="a checkpoint's folder, an id on the hub, or a pocket model")]
Device = Annotated[str | None, typer.Option(help="cuda, cpu, ...; the best there is by default")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the checkpoint's own by default")]
DatasetsRoot = Annotated[
    Path | None, typer.Option(help="folder with copies of the hub's data sets; `pocket` for the miniatures")
]
SuiteNames = Annotated[list[str] | None, typer.Option(help="repeatable; see `prunelab list suites`")]
Shots = Annotated[str | None, typer.Option(help="examples in the prompt; several, such as 0,5, are each measured")]
AllowUntrainedPunkt = Annotated[
    bool, typer.Option("--allow-untrained-punkt", help="let IFEval do without nltk's punkt_tab, and mark its figures")
]
AllowCodeExecution = Annotated[
    bool, typer.Option("--allow-code-execution", help="let HumanEval run generated programs, in a cage")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the output where it exists")]


def main() -> None:
    """Entry point of the command `prunelab`."""
    _quieten()
    try:
        app(standalone_mode=False)
    except PrunelabError as error:
        err.print(f"[red]error:[/red] {_escaped(str(error))}")
        sys.exit(2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        err.print("stopped; what was finished is kept")
        sys.exit(130)
    except Exception as error:
        # Typer raises click's usage errors; its copy of click has no public name to catch them by.
        if not hasattr(error, "format_message"):
            raise
        err.print(f"[red]error:[/red] {_escaped(error.format_message())} (see --help)")
        sys.exit(2)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def _quieten() -> None:
    """Leave the terminal to our own lines: no bars and no advice from the libraries below."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # What they log as an error they raise as well.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    warnings.showwarning = _show_warning


def _show_warning(message: Any, category: Any, *rest: Any, **more: Any) -> None:
    if category is UserWarning:
        err.print(f"[yellow]warning:[/yellow] {_escaped(str(message))}")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar on a terminal; nothing elsewhere."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, of=total: progress.update(task, completed=done, total=of)


@app.command()
def prune(
    model: Model,
    out_folder: Annotated[Path, typer.Option("--out", help="folder to write the pruned checkpoint to")],
    method: Annotated[str | None, typer.Option(help="see `prunelab list methods`; flap by default")] = None,
    ratio: Annotated[
        float | None, typer.Option(help="share of the blocks' projection weights to remove; 0.2 by default")
    ] = None,
    calibration: Annotated[str, typer.Option(help="wikitext2, c4, or a .txt or .jsonl file")] = "wikitext2",
    samples: Annotated[int, typer.Option(help="calibration samples")] = 128,
    sequence_length: Annotated[int, typer.Option(help="tokens a sample, cut to the model's context")] = 2048,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="of the calibration's and a random method's draws")
    ] = 0,
    protect_first: Annotated[int, typer.Option(min=0, help="blocks at the beginning to leave whole")] = 0,
    protect_last: Annotated[int, typer.Option(min=0, help="blocks at the end to leave whole")] = 0,
    channel_multiple: Annotated[int, typer.Option(min=1, help="round pruned MLP widths to a multiple of this")] = 1,
    drop_sublayers: Annotated[bool, typer.Option(help="let a block lose its whole attention or MLP")] = False,
    uniform: Annotated[bool, typer.Option(help="one width for all blocks, for a stock class")] = False,
    compensation: Annotated[Literal["auto", "bias", "none"], typer.Option(help="what removed units leave")] = "auto",
    plan_file: Annotated[Path | None, typer.Option("--plan", help="apply this plan instead of making one")] = None,
    statistics: Annotated[Path | None, typer.Option(help="where statistics are kept and looked for")] = None,
    device: Device = None,
    dtype: Dtype = None,
    datasets_root: DatasetsRoot = None,
    overwrite: Overwrite = False,
) -> None:
    """Prune a model and write a checkpoint that loads everywhere."""
    from prunelab.allocation import Constraints, check_ratio
    from prunelab.checkpoint.save import save_checkpoint
    from prunelab.files import refuse_existing
    from prunelab.loading import load_model
    from prunelab.methods import methods
    from prunelab.plan import PruningPlan
    from prunelab.pocket.data import data_root
    from prunelab.prune import CalibrationOptions, PruningOptions, make_pruning_plan, needs_calibration, pruned_model

    if plan_file is not None and (method is not None or ratio is not None):
        raise InvalidRequest("--plan says what to keep: leave out --method and --ratio, or --plan")
    method, ratio = method or "flap", 0.2 if ratio is None else ratio
    check_ratio(ratio)
    _ = methods[method]
    refuse_existing(out_folder, overwrite, folder=True)
    if out_folder.exists() and Path(model).exists() and out_folder.samefile(model):
        raise InvalidRequest(f"{out_folder} is the model itself: choose another place")
    if statistics is not None and statistics.is_dir():
        raise InvalidRequest(f"--statistics {statistics} is a folder: give a file")
    plan = PruningPlan.load(plan_file) if plan_file is not None else None
    constraints = Constraints(protect_first, protect_last, channel_multiple, drop_sublayers)
    options = PruningOptions(constraints, uniform, compensation, seed)
    base = load_model(model, device=device, dtype=dtype)
    if plan is not None:
        plan.require_for(base.name, base.fingerprint)
    out.print(f"{base.name}: {base.decoder.parameters:,} parameters, {len(base.decoder.shapes)} blocks, {base.dtype}")
    collected = calibrating = None
    wanted = plan.compensation != "none" if plan is not None else needs_calibration(method, options)
    if wanted:
        of_text = CalibrationOptions(calibration, samples, sequence_length, seed=seed)
        if plan is not None:
            of_text = _calibration_of(plan, calibration)
        collected, calibrating = _calibrate(base, of_text, statistics, data_root(datasets_root, [model]))
    if plan is None:
        plan = make_pruning_plan(base, method, ratio, statistics=collected, calibration=calibrating, options=options)
    pruned = pruned_model(base, plan, collected)
    save_checkpoint(pruned, plan, out_folder, command=_command(), overwrite=overwrite)
    _print_plan(plan, pruned.decoder.parameters)
    out.print(f"written to {out_folder}; next: prunelab evaluate {out_folder} --benchmark wikitext2")


def _calibration_of(plan: Any, corpus: str) -> Any:
    """What the plan was calibrated on; of a user's file it knows the name alone, so the path is the one given."""
    from prunelab.calibration.corpus import CORPORA
    from prunelab.prune import CalibrationOptions

    made = plan.provenance.get("calibration") or {}
    known = CalibrationOptions()
    return CalibrationOptions(
        corpus=made["corpus"] if made.get("corpus") in CORPORA else corpus,
        samples=made.get("samples", known.samples),
        sequence_length=made.get("sequence_length", known.sequence_length),
        seed=made.get("seed", known.seed),
    )


def _command() -> str:
    return shlex.join(["prunelab", *sys.argv[1:]])


def _calibrate(base: Any, options: Any, path: Path | None, datasets_root: Path | None) -> tuple[Any, Any]:
    from prunelab.prune import cache_folder, calibrated, draw_for, statistics_key

    calibration = draw_for(base, options, datasets_root)
    if path is None:
        path = cache_folder() / "statistics" / f"{statistics_key(base, calibration)}.safetensors"
    with _bar("calibrating", len(calibration.token_ids)) as progress:
        collected = calibrated(base, calibration, path, progress)
    out.print(
        f"calibrated on {collected.tokens:,} tokens of {calibration.corpus} ({calibration.split}); kept in {path}"
    )
    return collected, calibration


def _print_plan(plan: Any, parameters: int) -> None:
    out.print(
        f"{plan.method}: {plan.achieved_ratio:.2%} of the blocks' weights removed (asked: {plan.requested_ratio:.2%}), "
        f"{plan.share_of_model:.2%} of the whole model; from {plan.base.parameters:,} to {parameters:,} parameters"
    )
    for note in plan.notes:
        out.print(f"note: {note}")


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
    datasets_root: DatasetsRoot = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure a model, whole or pruned."""
    from prunelab.benchmarks import EvaluationSettings
    from prunelab.benchmarks.suites import expand
    from prunelab.evaluate import runs_of
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
    _evaluate(model, runs_of(names, settings, _counts(shots)), out_file, (device, dtype), overwrite)


def _counts(shots: str | None) -> list[int]:
    """The numbers in `0,5`."""
    parts = [part.strip() for part in (shots or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InvalidRequest(f"--shots {shots} is not possible: give numbers of examples from 0, such as 0,5")
    return [int(part) for part in parts]


@app.command()
def throughput(
    model: Model,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file to write the measurements to")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(min=2)] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="the median of so many runs")] = 5,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure speed and size at batch size 1."""
    from prunelab.benchmarks import EvaluationSettings
    from prunelab.evaluate import runs_of

    settings = EvaluationSettings(prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats)
    _evaluate(model, runs_of(["throughput"], settings), out_file, (device, dtype), overwrite)


def _evaluate(
    name: str,
    runs: Sequence[Any],
    out_file: Path | None,
    placement: tuple[str | None, str | None],
    overwrite: bool,
) -> None:
    from prunelab.evaluate import check_all, dense_cell
    from prunelab.evaluate import evaluate as run
    from prunelab.files import refuse_existing
    from prunelab.loading import load_model

    if out_file is not None:
        refuse_existing(out_file, overwrite)
    check_all(runs)
    model = load_model(name, device=placement[0], dtype=placement[1])
    check_all(runs, model)
    measurements = []
    for benchmark, settings in runs:
        with _bar(benchmark.name, 1) as progress:
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
        table.add_row(m.benchmark, shots, f"{m.metric} {m.group}".strip(), f"{m.value:,.6g}", error, str(m.n))
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
        "sentences split without nltk's trained data": details.get("punkt") == "untrained",
        f"{details.get('not_official')} over both splits are not the official scorer's": details.get("not_official"),
        f"intersentence {details.get('intersentence')}": details.get("intersentence"),
    }
    return [remark for remark, holds in remarks.items() if holds]


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
    calibration: Annotated[str | None, typer.Option(help="wikitext2, c4, or a .txt or .jsonl file")] = None,
    samples: Annotated[int | None, typer.Option(help="calibration samples")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="tokens a sample")] = None,
    limit: Annotated[int | None, typer.Option(help="only so many documents a benchmark")] = None,
    window: Annotated[int | None, typer.Option(help="tokens a perplexity window")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="the run's folder; a study goes on where it was")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    datasets_root: DatasetsRoot = None,
) -> None:
    """Prune a model every way, measure every cut, and report what was lost; by default, the pocket study."""
    from prunelab.config import read_config, study_config
    from prunelab.pocket.models import checkpoint_of
    from prunelab.pocket.study import pocket_study
    from prunelab.report.tables import main_table
    from prunelab.study import run_study

    fields: dict[str, Any] = read_config(config) if config is not None else {}
    given = {
        "models": model, "methods": method, "ratios": ratio, "benchmarks": benchmark, "suites": suite, "seeds": seed,
        "limit": limit, "window": window, "shots": _counts(shots), "chat_template": chat_template,
        "allow_untrained_punkt": allow_untrained_punkt, "allow_code_execution": allow_code_execution,
        "completions": completions, "out": out_folder, "device": device, "dtype": dtype,
        "datasets_root": datasets_root,
    }  # fmt: skip
    fields.update({key: value for key, value in given.items() if not (value is None or value is False or value == [])})
    if temperature is not None:  # 0 is one, too
        fields["temperature"] = temperature
    if config is None and all(checkpoint_of(name) for name in model or []):
        pocket, left_out = pocket_study(model or ["pocket-llama"])
        fields = {**pocket, **fields}
        if not benchmark and not suite:
            for line in left_out:
                err.print(f"[yellow]note:[/yellow] {_escaped(line)}")
    if suite and not benchmark:
        fields.pop("benchmarks", None)
    if benchmark and not suite:
        fields.pop("suites", None)
    text = {"corpus": calibration, "samples": samples, "sequence_length": sequence_length}
    chosen = {key: value for key, value in text.items() if value is not None}
    if chosen:
        written = fields.get("calibration") or {}
        fields["calibration"] = {**({"corpus": written} if isinstance(written, str) else written), **chosen}
    resolved = study_config(fields, str(config) if config is not None else "the study")
    result = run_study(resolved, say=lambda line: out.print(_escaped(line)))
    table = main_table(result.measurements, result.differences)
    shown = RichTable(*table.columns)
    for row in table.rows:
        shown.add_row(*row)
    out.print(shown)
    out.print(f"{result.run}/results.csv holds every figure, {result.run}/report/report.md the report")
    if result.failures:
        err.print(f"[red]{len(result.failures)} cells failed[/red]: {result.run}/failures.json says why")
        raise typer.Exit(1 if any(f.fault for f in result.failures) else 2)


@app.command(name="list")
def list_(what: Annotated[Literal["methods", "benchmarks", "suites", "families"], typer.Argument()]) -> None:
    """List what is registered."""
    from prunelab.benchmarks import benchmarks
    from prunelab.benchmarks.suites import suites
    from prunelab.families import families
    from prunelab.methods import methods

    if what == "methods":
        table = RichTable("method", "removes", "what it does", "source")
        for m in methods.values():
            table.add_row(m.name, m.strategy, m.summary, m.source)
    elif what == "benchmarks":
        table = RichTable("benchmark", "what it measures", "primary metric", "chance", "shots")
        for b in benchmarks.values():
            chance, shots = ("" if x is None else f"{x:.3g}" for x in (b.chance, b.shots))
            table.add_row(b.name, b.title, b.primary, chance, shots)
        table.add_row("text:FILE", "perplexity of any text or JSONL file", "token_perplexity", "", "")
    elif what == "suites":
        table = RichTable("suite", "what it is", "limit", "benchmarks")
        for s in suites.values():
            table.add_row(s.name, s.title, "" if s.limit is None else str(s.limit), ", ".join(s.benchmarks))
    else:
        table = RichTable("family", "architecture", "where blocks live")
        for f in families.values():
            table.add_row(f.name, f.stock_class, f"{f.decoder}.{f.blocks}")
    out.print(table)


@app.command()
def fetch(
    to: Annotated[Path, typer.Option(help="the folder to fill, for --datasets-root")],
    suite: SuiteNames = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="repeatable")] = None,
    calibration: Annotated[list[str] | None, typer.Option(help="wikitext2 or c4; repeatable")] = None,
) -> None:
    """Bring benchmarks' data into a folder, for machines without internet."""
    from prunelab.benchmarks import find_benchmark
    from prunelab.benchmarks.suites import expand
    from prunelab.calibration.corpus import find_corpus
    from prunelab.datasets import fetch_sources

    chosen = [find_benchmark(name) for name in expand(suite or [], benchmark or [])[0]]
    corpora = [find_corpus(name) for name in calibration or []]
    if not chosen and not corpora:
        raise InvalidRequest("nothing to fetch: give --suite NAME, --benchmark NAME or --calibration NAME")
    for folder in fetch_sources([source for one in chosen for source in one.sources()] + corpora, to):
        out.print(f"fetched {folder}")
    for one in chosen:
        one.fetch(to)
    out.print(f"next, where there is no internet: prunelab evaluate MODEL --datasets-root {to}")


@app.command()
def doctor(datasets_root: DatasetsRoot = None) -> None:
    """Say what is installed, reachable and missing, and how to get it."""
    from prunelab.doctor import examine

    table = RichTable("what", "found", "remedy")
    for finding in examine(datasets_root):
        table.add_row(finding.what, finding.found, finding.remedy)
    out.print(table)


if __name__ == "__main__":
    main()

__all__ = ["InvalidRequest", "app", "main"]
