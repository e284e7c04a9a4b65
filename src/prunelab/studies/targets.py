"""The models that a study evaluates: dense or pruned, in memory or written to disk and run from there."""

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
"""Subfolder of a run for cuts of models that do not fit in memory, while they are measured."""


@dataclass(frozen=True)
class EvaluationTarget:
    """The model of a cell.

    Attributes:
        cell: the cell's identity in results.
        make: creates the model.
        plan: the pruning plan; None for the dense model.
    """

    cell: CellId
    make: Callable[[], LanguageModel]
    plan: PruningPlan | None = None


@dataclass
class EvaluationTargets:
    """The evaluation targets of one model's cells."""

    plans: ModelPlans

    def of(self, cell: GridCell) -> EvaluationTarget:
        """The target of a cell; computes its plan if necessary."""
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
        """Whether the model does not fit in memory."""
        return isinstance(self.plans.model, StreamedModel)

    def _to_run(self, path: str) -> LanguageModel:
        """Load a checkpoint, offloaded to CPU memory and disk as needed."""
        model = load_offloaded(path, device=self.plans.device, dtype=self.plans.dtype, memory=self.plans.memory)
        return replace(model, name=self.plans.model.name)

    def _written(self, model: StreamedModel, plan: PruningPlan, cut: CutRequest) -> LanguageModel:
        """Write a cut of a model that does not fit in memory, and load it from disk until its cell is done."""
        statistics = None if plan.compensation == "none" else self.plans.statistics(cut.seed)
        calibration = None if plan.compensation == "none" else self.plans.calibration(cut.seed)
        check_plan(model, plan, statistics, calibration)
        place = self.plans.store.run / TEMPORARY_CHECKPOINTS / plan.fingerprint
        save_streamed(model, plan, statistics, place, calibration, overwrite=True)
        return self._to_run(str(place))

    def forget(self, subject: EvaluationTarget) -> None:
        """Remove the temporary checkpoint of a target."""
        if subject.plan is not None and self.is_streamed:
            shutil.rmtree(self.plans.store.run / TEMPORARY_CHECKPOINTS / subject.plan.fingerprint, ignore_errors=True)
