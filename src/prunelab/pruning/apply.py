"""From a model to a plan to a pruned model: what the commands and the study share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.calibration.cache import CalibrationOptions, cache_folder, calibrated, draw_for, statistics_path
from prunelab.io.versions import versions
from prunelab.pruning.checks import check_plan
from prunelab.pruning.planner import PruningOptions, check_request, make_pruning_plan, needs_calibration, needs_moments
from prunelab.pruning.surgery import apply

if TYPE_CHECKING:
    from prunelab.calibration import ActivationStatistics, CalibrationSet
    from prunelab.models.loading import LanguageModel
    from prunelab.pruning.plan import PruningPlan

__all__ = [
    "CalibrationOptions",
    "PruningOptions",
    "cache_folder",
    "calibrated",
    "check_plan",
    "check_request",
    "draw_for",
    "make_pruning_plan",
    "needs_calibration",
    "needs_moments",
    "pruned_model",
    "statistics_path",
    "versions",
]


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
        statistics: what biases are made of; second moments in them save least squares its pass.
        calibration: the tokens that least squares is fitted to.

    Raises:
        PlanMismatch: the plan is another model's, or was made with another calibration.
        InvalidRequest: the plan compensates and what it needs is not there.
    """
    check_plan(model, plan, statistics, calibration)
    name = f"{model.name}-{plan.method}-{round(100 * plan.requested_ratio):02d}"
    return model.with_model(apply(model.decoder, plan, statistics, calibration), name)
