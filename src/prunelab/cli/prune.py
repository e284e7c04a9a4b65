"""`prunelab prune`: prune a model and write a smaller checkpoint."""

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
    method: Annotated[
        str | None, typer.Option(help="pruning method, flap by default (see `prunelab list methods`)")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="share of the blocks' projection weights to remove, 0.2 by default")
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            help="calibration text: wikitext2, c4, textvqa (images with text), or a .txt, .jsonl or .json file"
        ),
    ] = "wikitext2",
    samples: Annotated[int, typer.Option(help="number of calibration samples")] = 128,
    sequence_length: Annotated[
        int, typer.Option(help="tokens per calibration sample, at most the model's context length")
    ] = 2048,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="random seed of the calibration sample and of random methods")
    ] = 0,
    protect_first: Annotated[int, typer.Option(min=0, help="number of blocks at the start to leave unpruned")] = 0,
    protect_last: Annotated[int, typer.Option(min=0, help="number of blocks at the end to leave unpruned")] = 0,
    channel_multiple: Annotated[int, typer.Option(min=1, help="round pruned MLP widths to a multiple of this")] = 1,
    drop_sublayers: Annotated[bool, typer.Option(help="allow removing the entire attention or MLP of a block")] = False,
    competition: Annotated[
        Literal["all", "modules", "blocks", "blocks_and_modules"],
        typer.Option(help="which units are ranked together when pruning width"),
    ] = "all",
    uniform: Annotated[
        bool, typer.Option(help="prune all blocks to the same width, which standard transformers classes can load")
    ] = False,
    compensation: Annotated[
        Literal["auto", "none", "bias", "least_squares", "sequential", "linear_map"],
        typer.Option(help="how to compensate for removed units; auto: the default of the method"),
    ] = "auto",
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="pruning plan to apply instead of computing one")
    ] = None,
    statistics: Annotated[Path | None, typer.Option(help="file in which to cache calibration statistics")] = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
    datasets_root: DatasetsRoot = None,
    overwrite: Overwrite = False,
) -> None:
    """Prune a model and write the result as a Hugging Face checkpoint."""
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
        raise InvalidRequest(
            "--plan already determines what is removed: leave out --method and --ratio, or leave out --plan"
        )
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
    calibration_options = CalibrationOptions(calibration, samples, sequence_length, seed=seed)
    if plan is not None:
        _refuse_options(options)
    budget = parse_memory(memory)
    base = open_model(model, device=device, dtype=dtype, memory=budget)
    _check(base, plan, method, options)
    out.print(f"{base.name}: {base.decoder.parameters:,} parameters, {len(base.decoder.shapes)} blocks, {base.dtype}")
    if isinstance(base, StreamedModel):
        limit = "--memory" if budget else "the free memory"
        out.print(
            f"its weights ({format_bytes(base.weight_bytes)}) do not fit in {limit}: they are read block by block"
        )
    remove_unfinished(out_folder)
    require_space(out_folder, _least_bytes(base, plan.achieved_ratio if plan is not None else ratio))
    collected = calibrating = None
    calibrates = plan.compensation != "none" if plan is not None else needs_calibration(method, options)
    if calibrates:
        moments = needs_moments(method, options)
        if plan is not None:
            calibration_options, moments = _calibration_of(plan, calibration), plan.compensation == "least_squares"
        root = data_root(datasets_root, [model])
        collected, calibrating = _calibrate(base, calibration_options, statistics, root, budget, moments)
    if plan is None:
        plan = make_pruning_plan(base, method, ratio, statistics=collected, calibration=calibrating, options=options)
    parameters = _save(base, plan, collected, calibrating, out_folder, overwrite)
    _print_plan(plan, parameters)
    is_text_file = collected is not None and Path(calibration).suffix
    text = "--benchmark text:FILE" if is_text_file else "--benchmark wikitext2"
    suggestion = "--suite vision" if base.decoder.family.is_multimodal else text
    out.print(f"written to {out_folder}; next: prunelab evaluate {out_folder} {suggestion}")


def _require_statistics(statistics: Path, out_folder: Path) -> None:
    """Refuse a statistics file that cannot be written, holds other data, or lies in the output folder."""
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
            f"--statistics {statistics} lies in the output folder {out_folder}, which is replaced completely: give "
            "a file outside of it"
        )


def _refuse_options(options: Any) -> None:
    """Refuse pruning options given together with a plan, which determines them."""
    from prunelab.pruning.apply import PruningOptions

    if replace(options, seed=0) != PruningOptions():
        raise InvalidRequest(
            "--plan already determines what is removed and compensated: leave out --compensation, --uniform, "
            "--competition, --channel-multiple, --drop-sublayers, --protect-first and --protect-last, or "
            "leave out --plan"
        )


def _check(base: Any, plan: Any, method: str, options: Any) -> None:
    """Refuse a request that is bound to fail, before calibration."""
    from prunelab.pruning.apply import check_plan, check_request

    if plan is not None:
        check_plan(base, plan)
    else:
        check_request(base, method, options)


def _least_bytes(base: Any, ratio: float) -> int:
    """Lower bound of the checkpoint's size in bytes, known before anything is computed."""
    left = base.decoder.parameters - ratio * base.decoder.cost
    return int(left * base.model.dtype.itemsize)


def _save(base: Any, plan: Any, collected: Any, calibrating: Any, out_folder: Path, overwrite: bool) -> int:
    """Write the pruned checkpoint and return its number of parameters."""
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
    """Calibration options recorded in a plan; it records only the name of a user's file, so `corpus` gives its path."""
    from prunelab.calibration.corpus import CORPORA
    from prunelab.calibration.image_text import PAIR_CORPORA
    from prunelab.pruning.apply import CalibrationOptions

    recorded = plan.provenance.get("calibration") or {}
    default = CalibrationOptions()
    return CalibrationOptions(
        corpus=recorded["corpus"] if recorded.get("corpus") in {**CORPORA, **PAIR_CORPORA} else corpus,
        samples=recorded.get("samples", default.samples),
        sequence_length=recorded.get("sequence_length", default.sequence_length),
        seed=recorded.get("seed", default.seed),
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
        f"calibrated on {collected.tokens:,} tokens of {calibration.corpus} ({calibration.split}); "
        f"statistics saved to {path}"
    )
    return collected, calibration


def _print_plan(plan: Any, parameters: int) -> None:
    out.print(
        f"{plan.method}: {plan.achieved_ratio:.2%} of the blocks' weights removed (requested: "
        f"{plan.requested_ratio:.2%}), {plan.share_of_model:.2%} of all weights; from {plan.base.parameters:,} to "
        f"{parameters:,} parameters"
    )
    for note in plan.notes:
        out.print(f"note: {note}")
