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

import torch

from prunelab.allocation import Constraints, Kept, check_ratio
from prunelab.calibration import ActivationStatistics, CalibrationSet, calibrate, draw_calibration_set
from prunelab.checkpoint.forms import stock_group_counts, stock_holds_biases
from prunelab.errors import DataError, PlanMismatch
from prunelab.families import Decoder
from prunelab.fingerprint import content_hash
from prunelab.loading import LanguageModel
from prunelab.losses import mean_loss
from prunelab.methods import Budget, Evidence, PruningMethod, methods
from prunelab.plan import Compensation, PruningPlan, make_plan
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
        compensation: `bias`, `none`, or `auto`: bias, unless widths are to be uniform and the stock class has no slot.
        seed: for methods that draw at random.
    """

    constraints: Constraints = field(default_factory=Constraints)
    uniform: bool = False
    compensation: Literal["auto", "bias", "none"] = "auto"
    seed: int = 0


def cache_folder() -> Path:
    """Where statistics are kept between commands: PRUNELAB_CACHE, else the user's cache folder."""
    if "PRUNELAB_CACHE" in os.environ:
        return Path(os.environ["PRUNELAB_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunelab"


def draw_for(model: LanguageModel, options: CalibrationOptions, datasets_root: Path | None = None) -> CalibrationSet:
    """The calibration set of these options, its windows cut to the model's context."""
    return draw_calibration_set(
        options.corpus,
        model.tokenizer,
        samples=options.samples,
        sequence_length=min(options.sequence_length, model.context_length),
        held_out=options.held_out,
        seed=options.seed,
        datasets_root=datasets_root,
    )


def statistics_key(model: LanguageModel, calibration: CalibrationSet) -> str:
    """What the statistics depend on: model, number format and tokens; 16 hexadecimal digits."""
    return content_hash({"model": model.fingerprint, "dtype": model.dtype, "calibration": calibration.fingerprint})


def calibrated(
    model: LanguageModel, calibration: CalibrationSet, path: Path, progress: Progress | None = None
) -> ActivationStatistics:
    """The statistics in `path` where they are this model's and these tokens', else a pass that writes them there."""
    key = statistics_key(model, calibration)
    if path.exists():
        try:
            found = ActivationStatistics.load(path)
        except DataError:
            found = None
        if found is not None and found.provenance.get("key") == key:
            return found
    collected = calibrate(model.decoder, calibration, progress=progress)
    provenance = {**collected.provenance, "key": key, "model": model.name, "fingerprint": model.fingerprint}
    collected = ActivationStatistics(
        collected.tokens, collected.cosine_sum, collected.attention, collected.mlp, provenance
    )
    collected.save(path)
    return collected


def _loss_of_cut(
    model: LanguageModel,
    compensation: Compensation,
    statistics: ActivationStatistics | None,
    held_out: torch.Tensor,
    kept: Kept,
) -> float:
    return mean_loss(model.with_model(cut(model.decoder, kept, compensation, statistics)), held_out)


def _compensation(
    method: PruningMethod, model: LanguageModel, options: PruningOptions, calibrated: bool
) -> tuple[Compensation, tuple[str, ...]]:
    """Whether removed units leave a bias behind, and what to tell the user about it."""
    if method.strategy == "depth" or options.compensation == "none":
        return "none", ()
    if options.compensation == "bias":
        return "bias", ()
    if options.uniform and not stock_holds_biases(model.model.config, model.decoder.family):
        return "none", ("compensation is off: the stock class has no slot for its biases",)
    if not calibrated:
        return "none", ("compensation is off: nothing was calibrated",)
    return "bias", ()


def make_pruning_plan(
    model: LanguageModel,
    method_name: str,
    ratio: float,
    *,
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
    options: PruningOptions | None = None,
) -> PruningPlan:
    """Decide what to keep.

    Args:
        model: the model.
        method_name: a registered method.
        ratio: share of the blocks' projection weights to remove, in [0, 1).
        statistics: of the calibration pass; methods and compensation that need none do without.
        calibration: the calibration set, for methods that compare losses on its held-out windows.
        options: see `PruningOptions`.

    Raises:
        UnknownName: no such method.
        InvalidRequest: the ratio is out of range or out of reach, or options contradict each other.
    """
    check_ratio(ratio)
    options = options or PruningOptions()
    method, decoder = methods[method_name], model.decoder
    compensation, notes = _compensation(method, model, options, statistics is not None)
    loss = None
    if calibration is not None and calibration.held_out is not None:
        loss = partial(_loss_of_cut, model, compensation, statistics, calibration.held_out)
    counts = None
    if options.uniform and method.strategy != "depth":
        counts = stock_group_counts(model.model.config, decoder.family, biased=compensation == "bias")
    budget = Budget(ratio, options.constraints, counts)
    evidence = Evidence(decoder, statistics, options.seed, loss)
    decision = method.decide(evidence, budget)
    if _nothing_narrowed(decoder, decision.kept):
        compensation = "none"
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
        "uniform": options.uniform,
    }


def _nothing_narrowed(decoder: Decoder, kept: Kept) -> bool:
    return all(
        shape == decoder.shapes[block] for block, shape in zip(kept.blocks, kept.shapes(decoder.shapes), strict=True)
    )


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("prunelab", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def pruned_model(
    model: LanguageModel, plan: PruningPlan, statistics: ActivationStatistics | None = None
) -> LanguageModel:
    """Apply a plan to the model it was made for.

    Raises:
        PlanMismatch: the plan is another model's.
        InvalidRequest: the plan compensates and there are no statistics.
    """
    plan.require_for(model.name, model.fingerprint)
    if plan.compensation != "none" and statistics is not None:
        made = (plan.provenance.get("calibration") or {}).get("fingerprint")
        given = (statistics.provenance.get("calibration") or {}).get("fingerprint")
        if made != given:
            raise PlanMismatch(
                f"the plan's biases were made from calibration {made}, the statistics given are of {given}: calibrate "
                f"on what the plan says ({_words(plan.provenance.get('calibration'))})"
            )
    name = f"{model.name}-{plan.method}-{round(100 * plan.requested_ratio):02d}"
    return model.with_model(apply(model.decoder, plan, statistics), name)


def _words(calibration: dict[str, Any] | None) -> str:
    names = ("corpus", "split", "samples", "sequence_length", "seed")
    return ", ".join(f"{name} {(calibration or {}).get(name)}" for name in names)


def needs_calibration(method_name: str, options: PruningOptions) -> bool:
    """Whether a method has use for a calibration pass, for its scores or for compensation."""
    method = methods[method_name]
    compensates = method.strategy != "depth" and options.compensation != "none"
    return method.needs_statistics or method.needs_loss or compensates
