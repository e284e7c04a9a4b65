"""Apply a plan to a model; the commands and the study share this module."""

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
        model: the dense model.
        plan: the plan.
        statistics: calibration statistics for `bias`; second moments in them spare least squares a calibration pass.
        calibration: the calibration tokens for the other compensations.

    Raises:
        PlanMismatch: the plan belongs to another model, or was made with another calibration.
        InvalidRequest: the plan's compensation needs statistics or tokens that are missing.
    """
    check_plan(model, plan, statistics, calibration)
    name = f"{model.name}-{plan.method}-{round(100 * plan.requested_ratio):02d}"
    return model.with_model(apply(model.decoder, plan, statistics, calibration), name)
