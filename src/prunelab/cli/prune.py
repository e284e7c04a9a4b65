"""`prunelab prune`: from a model to a smaller checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from prunelab.cli.options import DatasetsRoot, Device, Dtype, Memory, Model, Overwrite
from prunelab.cli.terminal import app, bar, command, out
from prunelab.errors import InvalidRequest


@app.command()
def prune(
    model: Model,
    out_folder: Annotated[Path, typer.Option("--out", help="folder to write the pruned checkpoint to")],
    method: Annotated[str | None, typer.Option(help="see `prunelab list methods`; flap by default")] = None,
    ratio: Annotated[
        float | None, typer.Option(help="share of the blocks' projection weights to remove; 0.2 by default")
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="wikitext2, c4, textvqa (images with text), or a .txt, .jsonl or .json file")
    ] = "wikitext2",
    samples: Annotated[int, typer.Option(help="calibration samples")] = 128,
    sequence_length: Annotated[int, typer.Option(help="tokens a sample, cut to the model's context")] = 2048,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="of the calibration's and a random method's draws")
    ] = 0,
    protect_first: Annotated[int, typer.Option(min=0, help="blocks at the beginning to leave whole")] = 0,
    protect_last: Annotated[int, typer.Option(min=0, help="blocks at the end to leave whole")] = 0,
    channel_multiple: Annotated[int, typer.Option(min=1, help="round pruned MLP widths to a multiple of this")] = 1,
    drop_sublayers: Annotated[bool, typer.Option(help="let a block lose its whole attention or MLP")] = False,
    competition: Annotated[
        Literal["all", "modules", "blocks", "blocks_and_modules"],
        typer.Option(help="which units compete for one budget in width"),
    ] = "all",
    uniform: Annotated[bool, typer.Option(help="one width for all blocks, for a stock class")] = False,
    compensation: Annotated[
        Literal["auto", "none", "bias", "least_squares", "sequential", "linear_map"],
        typer.Option(help="what makes up for removed units; the method's own by default"),
    ] = "auto",
    plan_file: Annotated[Path | None, typer.Option("--plan", help="apply this plan instead of making one")] = None,
    statistics: Annotated[Path | None, typer.Option(help="where statistics are kept and looked for")] = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    datasets_root: DatasetsRoot = None,
    overwrite: Overwrite = False,
) -> None:
    """Prune a model and write a checkpoint that loads everywhere."""
    from prunelab.io.atomic_write import refuse_existing, refuse_input_path, remove_unfinished, require_space
    from prunelab.models.memory import format_bytes, parse_memory
    from prunelab.models.streaming.model import StreamedModel, open_model
    from prunelab.pocket.data import data_root
    from prunelab.pruning.allocation import Constraints, check_ratio
    from prunelab.pruning.apply import (
        CalibrationOptions,
        PruningOptions,
        make_pruning_plan,
        needs_calibration,
        needs_moments,
    )
    from prunelab.pruning.methods import methods
    from prunelab.pruning.plan import PruningPlan

    if plan_file is not None and (method is not None or ratio is not None):
        raise InvalidRequest("--plan says what to keep: leave out --method and --ratio, or --plan")
    method, ratio = method or "flap", 0.2 if ratio is None else ratio
    check_ratio(ratio)
    _ = methods[method]
    refuse_existing(out_folder, overwrite, folder=True)
    refuse_input_path(out_folder, [model])
    if statistics is not None:
        _require_statistics(statistics, out_folder)
    plan = PruningPlan.load(plan_file) if plan_file is not None else None
    constraints = Constraints(protect_first, protect_last, channel_multiple, drop_sublayers, competition)
    options = PruningOptions(constraints, uniform, compensation, seed)
    of_text = CalibrationOptions(calibration, samples, sequence_length, seed=seed)
    if plan is not None:
        _refuse_options(options)
    budget = parse_memory(memory)
    base = open_model(model, device=device, dtype=dtype, memory=budget)
    _check(base, plan, method, options)
    out.print(f"{base.name}: {base.decoder.parameters:,} parameters, {len(base.decoder.shapes)} blocks, {base.dtype}")
    if isinstance(base, StreamedModel):
        where = "--memory" if budget else "what is free"
        out.print(f"its weights ({format_bytes(base.weight_bytes)}) are too large for {where}: read block by block")
    remove_unfinished(out_folder)
    require_space(out_folder, _least_bytes(base, plan.achieved_ratio if plan is not None else ratio))
    collected = calibrating = None
    wanted = plan.compensation != "none" if plan is not None else needs_calibration(method, options)
    if wanted:
        moments = needs_moments(method, options)
        if plan is not None:
            of_text, moments = _calibration_of(plan, calibration), plan.compensation == "least_squares"
        root = data_root(datasets_root, [model])
        collected, calibrating = _calibrate(base, of_text, statistics, root, budget, moments)
    if plan is None:
        plan = make_pruning_plan(base, method, ratio, statistics=collected, calibration=calibrating, options=options)
    parameters = _save(base, plan, collected, calibrating, out_folder, overwrite)
    _print_plan(plan, parameters)
    own_text = collected is not None and Path(calibration).suffix
    text = "--benchmark text:FILE" if own_text else "--benchmark wikitext2"
    measured = "--suite vision" if base.decoder.family.is_multimodal else text
    out.print(f"written to {out_folder}; next: prunelab evaluate {out_folder} {measured}")


def _require_statistics(statistics: Path, out_folder: Path) -> None:
    """Refuse a file for statistics that cannot be written, holds something else, or lies in the output folder."""
    from prunelab.calibration.cache import require_statistics_place
    from prunelab.io.paths import kind_of

    if kind_of(statistics) == "folder":
        raise InvalidRequest(f"--statistics {statistics} is a folder: give a file")
    try:
        require_statistics_place(statistics)
    except InvalidRequest as error:
        raise InvalidRequest(f"--statistics: {error}") from error
    if statistics.absolute().is_relative_to(out_folder.absolute()):
        raise InvalidRequest(
            f"--statistics {statistics} lies in the output folder {out_folder}, which is written as a whole: give a "
            "file elsewhere"
        )


def _refuse_options(options: Any) -> None:
    """Refuse pruning options beside a plan, which decides them."""
    from prunelab.pruning.apply import PruningOptions

    if replace(options, seed=0) != PruningOptions():
        raise InvalidRequest(
            "--plan says what to keep and how it is made up for: leave out --compensation, --uniform, --competition, "
            "--channel-multiple, --drop-sublayers and what protects blocks, or --plan"
        )


def _check(base: Any, plan: Any, method: str, options: Any) -> None:
    """Refuse what can be known to fail before anything is calibrated."""
    from prunelab.pruning.apply import check_plan, check_request

    if plan is not None:
        check_plan(base, plan)
    else:
        check_request(base, method, options)


def _least_bytes(base: Any, ratio: float) -> int:
    """What the checkpoint will take at least, known before anything is computed."""
    left = base.decoder.parameters - ratio * base.decoder.cost
    return int(left * base.model.dtype.itemsize)


def _save(base: Any, plan: Any, collected: Any, calibrating: Any, out_folder: Path, overwrite: bool) -> int:
    """Write the pruned checkpoint; its parameters."""
    from prunelab.checkpoint.save import save_checkpoint
    from prunelab.checkpoint.streamed_save import save_streamed
    from prunelab.models.streaming.model import StreamedModel
    from prunelab.pruning.apply import check_plan, pruned_model

    if isinstance(base, StreamedModel):
        check_plan(base, plan, collected, calibrating)
        pruned = save_streamed(base, plan, collected, out_folder, calibrating, command=command(), overwrite=overwrite)
    else:
        pruned = pruned_model(base, plan, collected, calibrating)
        save_checkpoint(pruned, plan, out_folder, command=command(), overwrite=overwrite)
    return pruned.decoder.parameters


def _calibration_of(plan: Any, corpus: str) -> Any:
    """What the plan was calibrated on; of a user's file it knows the name alone, so the path is the one given."""
    from prunelab.calibration.corpus import CORPORA
    from prunelab.calibration.image_text import PAIR_CORPORA
    from prunelab.pruning.apply import CalibrationOptions

    made = plan.provenance.get("calibration") or {}
    known = CalibrationOptions()
    return CalibrationOptions(
        corpus=made["corpus"] if made.get("corpus") in {**CORPORA, **PAIR_CORPORA} else corpus,
        samples=made.get("samples", known.samples),
        sequence_length=made.get("sequence_length", known.sequence_length),
        seed=made.get("seed", known.seed),
    )


def _calibrate(
    base: Any, options: Any, path: Path | None, datasets_root: Path | None, memory: int | None, moments: bool
) -> tuple[Any, Any]:
    from prunelab.pruning.apply import calibrated, draw_for, statistics_path

    calibration = draw_for(base, options, datasets_root)
    path = path or statistics_path(base, calibration)
    with bar("calibrating", len(calibration.token_ids)) as progress:
        collected = calibrated(base, calibration, path, progress, memory, out.print, moments)
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
