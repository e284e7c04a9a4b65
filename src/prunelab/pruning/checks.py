"""Checks before planning and pruning: the plan's model, its calibration, and the limits of streamed models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunelab.errors import InvalidRequest, PlanMismatch
from prunelab.models.streaming.model import StreamedModel
from prunelab.pruning.compensation import COMPENSATORS, Compensation
from prunelab.pruning.methods import PruningMethod, methods

if TYPE_CHECKING:
    from prunelab.calibration import ActivationStatistics, CalibrationSet
    from prunelab.models.loading import LanguageModel
    from prunelab.pruning.plan import PruningPlan


def check_plan(
    model: LanguageModel,
    plan: PruningPlan,
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
) -> None:
    """Check that a plan belongs to this model and that its compensation was made from this calibration.

    Raises:
        PlanMismatch: another model or calibration; the message gives both fingerprints.
        InvalidRequest: the plan's compensation does not support a streamed model.
    """
    plan.require_for(model.name, model.fingerprint)
    if isinstance(model, StreamedModel):
        refuse_streamed(model, None, plan.compensation)
    given = None
    if plan.compensation in COMPENSATORS and calibration is not None:
        given = calibration.fingerprint
    elif plan.compensation == "bias" and statistics is not None:
        given = (statistics.provenance.get("calibration") or {}).get("fingerprint")
    if given is not None:
        made = (plan.provenance.get("calibration") or {}).get("fingerprint")
        if made != given:
            raise PlanMismatch(
                f"the plan's compensation was made from calibration {made}, but calibration {given} was given; use the "
                f"plan's calibration ({_words(plan.provenance.get('calibration'))})"
            )


def _words(calibration: dict[str, Any] | None) -> str:
    names = ("corpus", "split", "samples", "sequence_length", "seed")
    return ", ".join(f"{name} {(calibration or {}).get(name)}" for name in names)


def refuse_streamed(model: StreamedModel, method: PruningMethod | None, compensation: Compensation) -> None:
    """Raise InvalidRequest for methods and compensations that need the dense model in memory."""
    if method is not None and (method.needs_loss or method.runs_model):
        others = ", ".join(other.name for other in methods.values() if not (other.needs_loss or other.runs_model))
        does = "compares candidates by their loss" if method.needs_loss else "runs the model on the calibration tokens"
        raise InvalidRequest(
            f"{method.name} {does}, which needs the dense model in memory, but {model.name} is read block by block: "
            f"give more --memory, or use a method that needs only statistics ({others})"
        )
    if compensation in COMPENSATORS and compensation != "least_squares":
        raise InvalidRequest(
            f"{compensation} compensation needs the dense model in memory, but {model.name} is read block by block: "
            "give more --memory, or use --compensation least_squares, bias or none"
        )
