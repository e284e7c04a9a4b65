"""What is refused before it is planned or applied: another model's plan, another text's, too large a model."""

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
    """Refuse a plan of another model, or another text than the plan's compensation was made from.

    Raises:
        PlanMismatch: naming both.
        InvalidRequest: the plan compensates by what a streamed model cannot.
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
                f"the plan's compensation was made from calibration {made}, what is given is of {given}: calibrate "
                f"on what the plan says ({_words(plan.provenance.get('calibration'))})"
            )


def _words(calibration: dict[str, Any] | None) -> str:
    names = ("corpus", "split", "samples", "sequence_length", "seed")
    return ", ".join(f"{name} {(calibration or {}).get(name)}" for name in names)


def refuse_streamed(model: StreamedModel, method: PruningMethod | None, compensation: Compensation) -> None:
    """Refuse what takes more of a model than its statistics and one weight after another."""
    if method is not None and (method.needs_loss or method.runs_model):
        others = ", ".join(other.name for other in methods.values() if not (other.needs_loss or other.runs_model))
        does = "compares candidates by their loss" if method.needs_loss else "runs the calibration tokens by itself"
        raise InvalidRequest(
            f"{method.name} {does}, which takes the whole model in memory, and {model.name} "
            f"is read block by block: give more --memory, or a method that is arithmetic on statistics ({others})"
        )
    if compensation in COMPENSATORS and compensation != "least_squares":
        raise InvalidRequest(
            f"{compensation} compensation takes the whole model in memory, and {model.name} is read block by block: "
            "give more --memory, or --compensation least_squares, bias or none"
        )
