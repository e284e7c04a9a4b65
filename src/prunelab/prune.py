"""From a model to a plan to a pruned model: what the commands and the study share."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from prunelab.allocation import Constraints, Kept, check_ratio
from prunelab.calibration import (
    ActivationStatistics,
    CalibrationSet,
    calibrate,
    draw_calibration_set,
    draw_pairs,
    is_pairs,
)
from prunelab.calibration.collect import TOKENS_A_BATCH
from prunelab.calibration.streaming import calibrate_streaming
from prunelab.checkpoint.forms import stock_group_counts, stock_holds_biases
from prunelab.compensation import COMPENSATORS, FOR_BLOCKS, Compensation
from prunelab.errors import DataError, InvalidRequest, PlanMismatch
from prunelab.families import Decoder, ModelFamily
from prunelab.fingerprint import content_hash
from prunelab.loading import LanguageModel
from prunelab.losses import mean_divergence, mean_loss
from prunelab.memory import free_memory, held, plan_streaming
from prunelab.methods import Budget, Evidence, PruningMethod, Shared, methods
from prunelab.plan import PruningPlan, make_plan
from prunelab.streamed import StreamedModel
from prunelab.surgery import apply, cut

Progress = Callable[[int], None]


@dataclass(frozen=True)
class CalibrationOptions:
    """Which text to calibrate on; see `draw_calibration_set`."""

    corpus: str = "wikitext2"
    samples: int = 128
    sequence_length: int = 2048
    held_out: int = 16
    seed: int = 0


@dataclass(frozen=True)
class PruningOptions:
    """How to prune, besides the method and the ratio.

    Attributes:
        constraints: what the cut must respect.
        uniform: one width for all blocks, so that a stock class loads the result.
        compensation: one of those in `prunelab.compensation`, or `auto`: the method's own, which is bias for width
            methods, unless widths are to be uniform and the stock class has no slot.
        seed: for methods that draw at random.
    """

    constraints: Constraints = field(default_factory=Constraints)
    uniform: bool = False
    compensation: Literal["auto", "none", "bias", "least_squares", "sequential", "linear_map"] = "auto"
    seed: int = 0


def cache_folder() -> Path:
    """Where statistics are kept between commands: PRUNELAB_CACHE, else the user's cache folder."""
    if "PRUNELAB_CACHE" in os.environ:
        return Path(os.environ["PRUNELAB_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunelab"


def draw_for(model: LanguageModel, options: CalibrationOptions, datasets_root: Path | None = None) -> CalibrationSet:
    """The calibration set of these options, its windows cut to the model's context."""
    common: dict[str, Any] = {
        "samples": options.samples,
        "sequence_length": min(options.sequence_length, model.context_length),
        "held_out": options.held_out,
        "seed": options.seed,
        "datasets_root": datasets_root,
    }
    if is_pairs(options.corpus):
        return draw_pairs(options.corpus, model.processor, **common)
    return draw_calibration_set(options.corpus, model.tokenizer, **common)


def statistics_key(model: LanguageModel, calibration: CalibrationSet) -> str:
    """What the statistics depend on: model, number format and tokens; 16 hexadecimal digits."""
    return content_hash({"model": model.fingerprint, "dtype": model.dtype, "calibration": calibration.fingerprint})


def calibrated(
    model: LanguageModel,
    calibration: CalibrationSet,
    path: Path,
    progress: Progress | None = None,
    memory: int | None = None,
) -> ActivationStatistics:
    """The statistics in `path` where they are this model's and these tokens', else a pass that writes them there.

    Args:
        model: the model; one that is streamed is calibrated block by block, its hidden states beside `path`.
        calibration: the tokens.
        path: the statistics' file.
        progress: called with the number of samples done.
        memory: bytes that the process may hold where the model is streamed; what is free if not given.
    """
    key = statistics_key(model, calibration)
    if path.exists():
        try:
            found = ActivationStatistics.load(path)
        except DataError:
            found = None
        if found is not None and found.provenance.get("key") == key:
            return found
    if isinstance(model, StreamedModel):
        collected = _calibrate_streamed(model, calibration, path, key, progress, memory)
    else:
        collected = calibrate(model.decoder, calibration, progress=progress)
    provenance = {**collected.provenance, "key": key, "model": model.name, "fingerprint": model.fingerprint}
    collected = ActivationStatistics(
        collected.tokens, collected.cosine_sum, collected.attention, collected.mlp, provenance
    )
    collected.save(path)
    return collected


def _calibrate_streamed(
    model: StreamedModel,
    calibration: CalibrationSet,
    path: Path,
    key: str,
    progress: Progress | None,
    memory: int | None,
) -> ActivationStatistics:
    already = held()
    samples, length = calibration.token_ids.shape
    way = plan_streaming(
        model.decoder.shapes,
        itemsize=model.model.dtype.itemsize,
        vocabulary=model.model.get_input_embeddings().num_embeddings,
        samples=samples,
        sequence_length=length,
        tokens_a_batch=TOKENS_A_BATCH,
        budget=memory or already + free_memory(model.device),
        already=already,
    )
    return calibrate_streaming(
        model.decoder,
        calibration,
        path.with_name(f"{path.name}.streaming"),
        key,
        in_memory=way.in_memory,
        tokens_a_batch=way.tokens_a_batch,
        progress=progress,
    )


def _measure_of_cut(
    measure: Callable[[LanguageModel, Tensor | CalibrationSet], float],
    model: LanguageModel,
    statistics: ActivationStatistics | None,
    calibration: CalibrationSet,
    kept: Kept,
    compensation: Compensation,
) -> float:
    held_out = calibration.held_out_pairs or calibration.held_out
    assert held_out is not None
    pruned = cut(model.decoder, kept, compensation, statistics, calibration)
    return measure(model.with_model(pruned), held_out)


def _divergence(whole: LanguageModel, pruned: LanguageModel, held_out: Tensor | CalibrationSet) -> float:
    return mean_divergence(pruned, whole, held_out)


def _compensation(
    method: PruningMethod, model: LanguageModel, options: PruningOptions, calibrated: bool
) -> tuple[Compensation, tuple[str, ...]]:
    """What makes up for removed units, and what to tell the user about it."""
    wished = options.compensation
    if wished == "auto" and method.compensation is not None:
        wished = method.compensation
        if wished == "linear_map" and options.uniform and _norm_behind(model.decoder.family):
            return "none", ("compensation is off: the stock class has no slot for its linear map",)
    if method.strategy == "depth" and wished not in FOR_BLOCKS:
        return "none", ()
    if wished != "auto":
        return wished, ()
    if options.uniform and not stock_holds_biases(model.model.config, model.decoder.family):
        return "none", ("compensation is off: the stock class has no slot for its biases",)
    if not calibrated:
        return "none", ("compensation is off: nothing was calibrated",)
    return "bias", ()


def _norm_behind(family: ModelFamily) -> bool:
    """Whether a norm stands between an MLP and the stream, so that no linear map can be merged into it."""
    return family.adder(family.mlp.writer) != family.mlp.writer


def _rank_note(decoder: Decoder, statistics: ActivationStatistics | None) -> tuple[str, ...]:
    """Said where least squares has fewer tokens than channels to learn from."""
    widest = max(shape.channels for shape in decoder.shapes)
    if statistics is None or statistics.tokens > widest:
        return ()
    return (
        f"{statistics.tokens} calibration tokens are no more than the {widest} channels of a block: their moments "
        "have no full rank, and least squares is held back by a hundred times the usual ridge; calibrate on more",
    )


def _refuse_streamed(model: StreamedModel, method: PruningMethod | None, compensation: Compensation) -> None:
    """Refuse what takes more of a model than its statistics and one weight after another."""
    if method is not None and (method.needs_loss or method.runs_model):
        others = ", ".join(other.name for other in methods.values() if not (other.needs_loss or other.runs_model))
        does = "compares candidates by their loss" if method.needs_loss else "runs the calibration tokens by itself"
        raise InvalidRequest(
            f"{method.name} {does}, which takes the whole model in memory, and {model.name} "
            f"is read block by block: give more --memory, or a method that is arithmetic on statistics ({others})"
        )
    if compensation in COMPENSATORS:
        raise InvalidRequest(
            f"{compensation} compensation takes the whole model in memory, and {model.name} is read block by block: "
            "give more --memory, or --compensation bias or none"
        )


def make_pruning_plan(
    model: LanguageModel,
    method_name: str,
    ratio: float,
    *,
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
    options: PruningOptions | None = None,
    shared: Shared | None = None,
) -> PruningPlan:
    """Decide what to keep.

    Args:
        model: the model.
        method_name: a registered method.
        ratio: share of the blocks' projection weights to remove, in [0, 1).
        statistics: of the calibration pass; methods and compensation that need none do without.
        calibration: the calibration set, for methods that compare losses on its held-out windows.
        options: see `PruningOptions`.
        shared: what other plans for this model, with this calibration, have found.

    Raises:
        UnknownName: no such method.
        InvalidRequest: the ratio is out of range or out of reach, or options contradict each other.
    """
    check_ratio(ratio)
    options = options or PruningOptions()
    method, decoder = methods[method_name], model.decoder
    compensation, notes = _compensation(method, model, options, statistics is not None)
    loss = divergence = None
    if isinstance(model, StreamedModel):
        _refuse_streamed(model, method, compensation)
        calibration = None
    elif calibration is not None and (calibration.held_out_pairs or calibration.held_out) is not None:
        loss = partial(_measure_of_cut, mean_loss, model, statistics, calibration)
        divergence = partial(_measure_of_cut, partial(_divergence, model), model, statistics, calibration)
    counts = None
    if options.uniform and method.strategy != "depth":
        counts = stock_group_counts(model.model.config, decoder.family, biased=compensation != "none")
    budget = Budget(ratio, options.constraints, counts)
    evidence = Evidence(
        decoder, statistics, options.seed, loss, divergence, calibration, compensation, shared or Shared()
    )
    decision = method.decide(evidence, budget)
    compensation = decision.compensation or compensation
    if _nothing_to_make_up(decoder, decision.kept, compensation):
        compensation = "none"
    if compensation in COMPENSATORS:
        notes += _rank_note(decoder, statistics)
    return make_plan(
        decoder,
        decision.kept,
        name=model.name,
        fingerprint=model.fingerprint,
        method=method_name,
        ratio=ratio,
        compensation=compensation,
        notes=(*notes, *decision.notes),
        provenance={
            "calibration": dict(statistics.provenance["calibration"]) if statistics is not None else None,
            "dtype": model.dtype,
            "seed": options.seed if method.is_random else None,
            "options": _options_record(options),
            **decision.details,
            "versions": versions(),
        },
    )


def _options_record(options: PruningOptions) -> dict[str, Any]:
    constraints = options.constraints
    return {
        "protect_first": constraints.protect_first,
        "protect_last": constraints.protect_last,
        "channel_multiple": constraints.channel_multiple,
        "drop_sublayers": constraints.drop_sublayers,
        "competition": constraints.competition,
        "uniform": options.uniform,
    }


def _nothing_to_make_up(decoder: Decoder, kept: Kept, compensation: Compensation) -> bool:
    if compensation in FOR_BLOCKS and len(kept.blocks) < len(decoder.shapes):
        return False
    return all(
        shape == decoder.shapes[block] for block, shape in zip(kept.blocks, kept.shapes(decoder.shapes), strict=True)
    )


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("prunelab", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def pruned_model(
    model: LanguageModel,
    plan: PruningPlan,
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
) -> LanguageModel:
    """Apply a plan to the model it was made for.

    Args:
        model: the base model.
        plan: what is kept.
        statistics: what biases are made of.
        calibration: the tokens that least squares is fitted to.

    Raises:
        PlanMismatch: the plan is another model's, or was made with another calibration.
        InvalidRequest: the plan compensates and what it needs is not there.
    """
    check_plan(model, plan, statistics, calibration)
    name = f"{model.name}-{plan.method}-{round(100 * plan.requested_ratio):02d}"
    return model.with_model(apply(model.decoder, plan, statistics, calibration), name)


def check_plan(
    model: LanguageModel,
    plan: PruningPlan,
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
) -> None:
    """Refuse a plan of another model, or another text than the plan's compensation was made from.

    Raises:
        PlanMismatch: naming both.
        InvalidRequest: the plan compensates by what a streamed model cannot.
    """
    plan.require_for(model.name, model.fingerprint)
    if isinstance(model, StreamedModel):
        _refuse_streamed(model, None, plan.compensation)
    given = None
    if plan.compensation in COMPENSATORS and calibration is not None:
        given = calibration.fingerprint
    elif plan.compensation == "bias" and statistics is not None:
        given = (statistics.provenance.get("calibration") or {}).get("fingerprint")
    if given is not None:
        made = (plan.provenance.get("calibration") or {}).get("fingerprint")
        if made != given:
            raise PlanMismatch(
                f"the plan's compensation was made from calibration {made}, what is given is of {given}: calibrate "
                f"on what the plan says ({_words(plan.provenance.get('calibration'))})"
            )


def _words(calibration: dict[str, Any] | None) -> str:
    names = ("corpus", "split", "samples", "sequence_length", "seed")
    return ", ".join(f"{name} {(calibration or {}).get(name)}" for name in names)


def needs_calibration(method_name: str, options: PruningOptions) -> bool:
    """Whether a method has use for a calibration pass, for its scores or for compensation."""
    method = methods[method_name]
    wished = options.compensation
    compensates = method.strategy != "depth" and wished != "none"
    compensates |= wished in FOR_BLOCKS or method.compensation in FOR_BLOCKS
    return method.needs_statistics or method.needs_loss or compensates
