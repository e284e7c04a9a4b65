"""Make a plan from a model, a method's name, a budget and a compensation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from prunelab.errors import InvalidRequest, UnknownName
from prunelab.inference.losses import mean_divergence, mean_loss
from prunelab.io.bounds import SEED
from prunelab.io.versions import versions
from prunelab.models.streaming.model import StreamedModel
from prunelab.pruning.allocation import Constraints, KeptUnits, check_ratio
from prunelab.pruning.architecture import stock_group_counts, stock_holds_biases
from prunelab.pruning.checks import refuse_streamed
from prunelab.pruning.compensation import COMPENSATORS, FOR_BLOCKS, Compensation, most_inputs
from prunelab.pruning.compensation.linear_map import removed_runs
from prunelab.pruning.methods import Budget, MethodInputs, PruningMethod, Shared, methods
from prunelab.pruning.plan import PruningPlan, make_plan
from prunelab.pruning.surgery import cut

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import ActivationStatistics, CalibrationSet
    from prunelab.models.families import Decoder, ModelFamily
    from prunelab.models.loading import LanguageModel


@dataclass(frozen=True)
class PruningOptions:
    """Pruning options besides the method and the ratio.

    Attributes:
        constraints: constraints of the allocation.
        uniform: give all blocks the same widths, so that a stock class loads the result.
        compensation: a compensation of `prunelab.pruning.compensation`, or `auto`: the method's default, which is bias
            for width methods, or none where widths are uniform and the stock class has no bias slot.
        seed: seed of methods that draw at random.

    Raises:
        UnknownName: there is no such compensation.
        InvalidRequest: the seed is out of bounds.
    """

    constraints: Constraints = field(default_factory=Constraints)
    uniform: bool = False
    compensation: Literal["auto", "none", "bias", "least_squares", "sequential", "linear_map"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values; the command line checks them as well."""
        SEED.check("seed", self.seed)
        known = ("auto", *get_args(Compensation))
        if self.compensation not in known:
            raise UnknownName("compensation", self.compensation, known)


def needs_calibration(method_name: str, options: PruningOptions) -> bool:
    """Whether the method or the compensation uses a calibration pass."""
    method = methods[method_name]
    requested = options.compensation
    compensates = method.strategy != "depth" and requested != "none"
    compensates |= requested in FOR_BLOCKS or method.compensation in FOR_BLOCKS
    return method.needs_statistics or method.needs_loss or compensates


def needs_moments(method_name: str, options: PruningOptions) -> bool:
    """Whether least squares or the method's search uses second moments besides the calibration statistics."""
    method = methods[method_name]
    requested = method.compensation if options.compensation == "auto" else options.compensation
    return method.needs_moments or (requested == "least_squares" and method.strategy != "depth")


def check_request(model: LanguageModel, method_name: str, options: PruningOptions) -> None:
    """Check, before calibration, that a streamed model supports the method and the compensation.

    Raises:
        InvalidRequest: the method or the compensation needs the dense model in memory.
    """
    if isinstance(model, StreamedModel):
        method = methods[method_name]
        refuse_streamed(model, method, _compensation(method, model, options, calibrated=True)[0])


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
    """Choose the units to keep.

    Args:
        model: the dense model.
        method_name: a registered method.
        ratio: share of the blocks' projection weights to remove, in [0, 1).
        statistics: calibration statistics; not needed by data-free methods without compensation.
        calibration: the calibration set, for methods that compare losses on its held-out windows.
        options: see `PruningOptions`.
        shared: intermediate results shared with other plans for this model and calibration.

    Raises:
        UnknownName: there is no such method.
        InvalidRequest: the ratio is out of range or out of reach, or options contradict each other.
    """
    check_ratio(ratio)
    options = options or PruningOptions()
    method, decoder = methods[method_name], model.decoder
    compensation, notes = _compensation(method, model, options, statistics is not None)
    loss = divergence = None
    if isinstance(model, StreamedModel):
        refuse_streamed(model, method, compensation)
        calibration = None
    elif calibration is not None and calibration.held_out_samples is not None:
        loss = partial(_measure_of_cut, mean_loss, model, statistics, calibration)
        divergence = partial(_measure_of_cut, partial(_divergence, model), model, statistics, calibration)
    counts = None
    if options.uniform and method.strategy != "depth":
        counts = stock_group_counts(model.model.config, decoder.family, biased=compensation != "none")
    budget = Budget(ratio, options.constraints, counts)
    evidence = MethodInputs(
        decoder, statistics, options.seed, loss, divergence, calibration, compensation, shared or Shared()
    )
    decision = method.decide(evidence, budget)
    if ratio > 0 and decision.kept == KeptUnits.everything(decoder.shapes):
        raise InvalidRequest(
            f"ratio {ratio:g} removes nothing with {method_name}: request more, or use a method with finer units"
        )
    compensation = decision.compensation or compensation
    if _nothing_to_make_up(decoder, decision.kept, compensation):
        if ratio > 0 and compensation == options.compensation != "none":
            notes += (f"compensation is off: the plan removes nothing that {compensation} compensates",)
        compensation = "none"
    if compensation in COMPENSATORS:
        notes += _rank_note(most_inputs(decoder, decision.kept, compensation), statistics)
    return make_plan(
        decoder,
        decision.kept,
        name=model.name,
        fingerprint=model.fingerprint,
        method=method_name,
        ratio=ratio,
        compensation=compensation,
        notes=(*notes, *decision.notes, *_base_notes(model)),
        provenance={
            **({"checkpoint": model.inspection.record()} if model.inspection is not None else {}),
            "calibration": dict(statistics.provenance["calibration"]) if statistics is not None else None,
            "dtype": model.dtype,
            "seed": options.seed if method.is_random else None,
            "options": options_record(options),
            **decision.details,
            "versions": versions(),
        },
    )


def _base_notes(model: LanguageModel) -> tuple[str, ...]:
    """Notes on configuration values that contradict the weights."""
    return model.inspection.corrections if model.inspection is not None else ()


def options_record(options: PruningOptions) -> dict[str, Any]:
    """The options as recorded in a plan's provenance."""
    constraints = options.constraints
    return {
        "protect_first": constraints.protect_first,
        "protect_last": constraints.protect_last,
        "channel_multiple": constraints.channel_multiple,
        "drop_sublayers": constraints.drop_sublayers,
        "competition": constraints.competition,
        "uniform": options.uniform,
    }


def _nothing_to_make_up(decoder: Decoder, kept: KeptUnits, compensation: Compensation) -> bool:
    if compensation == "linear_map":
        return not any(removed_runs(decoder, kept))
    if compensation == "sequential" and len(kept.blocks) < len(decoder.shapes):
        return False
    return all(
        shape == decoder.shapes[block] for block, shape in zip(kept.blocks, kept.shapes(decoder.shapes), strict=True)
    )


def _measure_of_cut(
    measure: Callable[[LanguageModel, Tensor | CalibrationSet], float],
    model: LanguageModel,
    statistics: ActivationStatistics | None,
    calibration: CalibrationSet,
    kept: KeptUnits,
    compensation: Compensation,
) -> float:
    held_out = calibration.held_out_samples
    assert held_out is not None
    pruned = cut(model.decoder, kept, compensation, statistics, calibration)
    return measure(model.with_model(pruned), held_out)


def _divergence(dense: LanguageModel, pruned: LanguageModel, held_out: Tensor | CalibrationSet) -> float:
    return mean_divergence(pruned, dense, held_out)


def _compensation(
    method: PruningMethod, model: LanguageModel, options: PruningOptions, calibrated: bool
) -> tuple[Compensation, tuple[str, ...]]:
    """The effective compensation, and notes for the user."""
    requested = options.compensation
    if requested == "auto" and method.compensation is not None:
        requested = method.compensation
        if requested == "linear_map" and options.uniform and _norm_behind(model.decoder.family):
            return "none", ("compensation is off: the stock class has no slot for the linear map",)
    if method.strategy == "depth" and requested not in FOR_BLOCKS:
        others = " and ".join(FOR_BLOCKS)
        why = f"compensation is off: {requested} compensates removed width, {others} compensate removed blocks"
        return "none", () if requested in ("auto", "none") else (why,)
    if requested != "auto":
        return requested, ()
    if options.uniform and not stock_holds_biases(model.model.config, model.decoder.family):
        return "none", ("compensation is off: the stock class has no slot for the biases",)
    if not calibrated:
        return "none", ("compensation is off: there are no calibration statistics",)
    return "bias", ()


def _norm_behind(family: ModelFamily) -> bool:
    """Whether a norm follows the MLP's output projection, so that a linear map cannot be merged into the projection."""
    return family.residual_output(family.mlp.output_projection) != family.mlp.output_projection


def _rank_note(inputs: int, statistics: ActivationStatistics | None) -> tuple[str, ...]:
    """A note where least squares has no more tokens than inputs."""
    if statistics is None or statistics.tokens > inputs:
        return ()
    return (
        f"{statistics.tokens} calibration tokens are too few for the {inputs} inputs of a projection: the second "
        "moments are rank-deficient, and least squares uses a hundred times the usual ridge; calibrate on more tokens",
    )
