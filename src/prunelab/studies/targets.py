"""What is measured in a cell of a study: the whole model or a cut of it, in memory or written and run from the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunelab.checkpoint.streamed_save import save_streamed
from prunelab.evaluation.runner import dense_cell
from prunelab.models.offloading import load_offloaded
from prunelab.models.streaming.model import StreamedModel
from prunelab.pruning.apply import pruned_model
from prunelab.pruning.checks import check_plan

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.pruning.plan import PruningPlan
    from prunelab.studies.grid import CutRequest, GridCell
    from prunelab.studies.plans import ModelPlans
    from prunelab.studies.store import CellId

TEMPORARY_CHECKPOINTS = "made"
"""Where cuts of a model too large for memory lie in a run's folder while they are measured."""


@dataclass(frozen=True)
class EvaluationTarget:
    """What is measured in a cell.

    Attributes:
        cell: the model as results know it.
        make: makes the model.
        plan: how it is cut; None for the dense model.
    """

    cell: CellId
    make: Callable[[], LanguageModel]
    plan: PruningPlan | None = None


@dataclass
class EvaluationTargets:
    """The subjects of one model's cells."""

    plans: ModelPlans

    def of(self, cell: GridCell) -> EvaluationTarget:
        """What is measured in a cell; its plan is made where there is none."""
        plans = self.plans
        dense = dense_cell(plans.model)
        if cell.cut is None:
            return EvaluationTarget(dense, lambda: self._to_run(plans.entry.path) if self.is_streamed else plans.model)
        cut, plan = cell.cut, plans.plan(cell.cut)
        known = {
            "method": cut.method,
            "ratio": cut.ratio,
            "achieved_ratio": plan.achieved_ratio,
            "seed": cut.seed,
            "plan": plan.fingerprint,
        }

        def make() -> LanguageModel:
            if isinstance(plans.model, StreamedModel):
                return self._written(plans.model, plan, cut)
            if plan.compensation == "none":
                return pruned_model(plans.model, plan)
            statistics = plans.statistics(cut.seed, plan.compensation == "least_squares")
            return pruned_model(plans.model, plan, statistics, plans.calibration(cut.seed))

        return EvaluationTarget(dense.model_copy(update=known), make, plan)

    @property
    def is_streamed(self) -> bool:
        """Whether the model is too large to be cut in memory."""
        return isinstance(self.plans.model, StreamedModel)

    def _to_run(self, path: str) -> LanguageModel:
        """A checkpoint, run from wherever there is room."""
        model = load_offloaded(path, device=self.plans.device, dtype=self.plans.dtype, memory=self.plans.memory)
        return replace(model, name=self.plans.model.name)

    def _written(self, model: StreamedModel, plan: PruningPlan, cut: CutRequest) -> LanguageModel:
        """A cut of a model too large for memory: written, and run from where it lies until its cell is done."""
        statistics = None if plan.compensation == "none" else self.plans.statistics(cut.seed)
        calibration = None if plan.compensation == "none" else self.plans.calibration(cut.seed)
        check_plan(model, plan, statistics, calibration)
        place = self.plans.store.run / TEMPORARY_CHECKPOINTS / plan.fingerprint
        save_streamed(model, plan, statistics, place, calibration, overwrite=True)
        return self._to_run(str(place))

    def forget(self, subject: EvaluationTarget) -> None:
        """Remove what was written of a cut to measure it."""
        if subject.plan is not None and self.is_streamed:
            shutil.rmtree(self.plans.store.run / TEMPORARY_CHECKPOINTS / subject.plan.fingerprint, ignore_errors=True)
