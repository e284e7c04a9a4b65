"""The model, calibration and plans that the cells of one model share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.calibration.cache import calibrated, draw_for, statistics_key
from prunelab.errors import DataError, InvalidRequest, PlanError
from prunelab.io.fingerprint import content_hash
from prunelab.models.memory import parse_memory
from prunelab.models.streaming.model import open_model
from prunelab.pruning.methods import Shared, methods
from prunelab.pruning.plan import PruningPlan
from prunelab.pruning.planner import make_pruning_plan, needs_calibration, needs_moments
from prunelab.studies.grid import CutRequest
from prunelab.studies.plan_checks import Asked, is_proven, with_content
from prunelab.studies.store import ResultsStore, set_aside, slug

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.studies.config import StudyConfig
    from prunelab.studies.model_entry import ModelEntry


@dataclass
class ModelPlans:
    """A model with its calibration statistics and pruning plans, each stored in the run's folder.

    Attributes:
        config: the study.
        entry: the model's entry in the study.
        store: the run's folder.
        note: reports a line.
    """

    config: StudyConfig
    entry: ModelEntry
    store: ResultsStore
    note: Callable[[str], None]

    @cached_property
    def model(self) -> LanguageModel:
        """The dense model, loaded on first access, or streamed from disk if it does not fit in memory."""
        model = open_model(self.entry.path, device=self.device, dtype=self.dtype, memory=self.memory)
        return replace(model, name=self.entry.name or model.name)

    @property
    def device(self) -> str | None:
        """The device; None for the best available."""
        return self.entry.device or self.config.device

    @property
    def dtype(self) -> str | None:
        """The number format; None for that of the checkpoint."""
        return self.entry.dtype or self.config.dtype

    @property
    def memory(self) -> int | None:
        """Memory limit in bytes; None for the free memory."""
        return parse_memory(self.config.memory)

    def calibration(self, seed: int) -> CalibrationSet:
        """The calibration set of a seed, drawn once."""
        if not self.config.vary_calibration:
            seed = self.config.seeds[0]
        if seed not in self._calibrations:
            options = self.config.calibration.options(seed)
            self._calibrations[seed] = draw_for(self.model, options, self.config.datasets_root)
        return self._calibrations[seed]

    @cached_property
    def _calibrations(self) -> dict[int, CalibrationSet]:
        return {}

    @cached_property
    def _shared(self) -> dict[str, Shared]:
        """Intermediate results shared by plans, by fingerprint of the calibration set."""
        return {}

    @cached_property
    def _statistics(self) -> dict[tuple[str, bool], ActivationStatistics]:
        """Statistics by key of the calibration, and by whether second moments are included."""
        return {}

    def statistics(self, seed: int, moments: bool = False) -> ActivationStatistics:
        """The statistics of a seed's calibration set, collected once and stored in the run.

        Args:
            seed: which calibration set.
            moments: include second moments; a first pass collects them if any cut of the study needs them.
        """
        calibration = self.calibration(seed)
        key = statistics_key(self.model, calibration)
        if (key, moments) not in self._statistics:
            path = self.store.run / "statistics" / f"{slug(self.model.name[:150])}-{key[:8]}.safetensors"
            _set_aside_if_damaged(path, key)
            collect = moments
            if not path.exists():
                self.note(f"{self.model.name}: calibrating on {calibration.token_ids.numel():,} tokens")
                options = self.config.pruning.options(seed)
                collect = moments or any(needs_moments(name, options) for name in self.config.methods)
            collected = calibrated(self.model, calibration, path, memory=self.memory, note=self.note, moments=collect)
            self._statistics[key, moments] = self._statistics[key, collect] = collected
        return self._statistics[key, moments]

    def plan(self, cut: CutRequest) -> PruningPlan:
        """The plan of a cut, from the run's folder if it exists there."""
        options = self.config.pruning.options(cut.seed)
        target = self._target(cut)
        calibrates = needs_calibration(cut.method, options)
        calibration = self.calibration(cut.seed) if calibrates else None
        request = content_hash(
            {
                "model": self.model.fingerprint,
                "dtype": self.model.dtype,
                "cut": [cut.method, target, cut.seed if methods[cut.method].is_random else None],
                "options": self.config.pruning.model_dump(),
                "calibration": calibration.fingerprint if calibration else None,
                "held_out": self.config.calibration.held_out if methods[cut.method].needs_loss else None,
            }
        )
        name = slug(f"{self.model.name[:150]}-{cut.method}-{100 * cut.ratio:g}-s{cut.seed}-{request[:8]}")
        path = self.store.run / "plans" / f"{name}.json"
        fingerprint = None if calibration is None else calibration.fingerprint
        stored = _stored_plan(path, Asked(self.model, cut.method, target, options, fingerprint, request))
        if stored is not None and is_proven(stored, self.store):
            return stored
        plan = make_pruning_plan(
            self.model,
            cut.method,
            target,
            statistics=self.statistics(cut.seed, needs_moments(cut.method, options)) if calibrates else None,
            calibration=calibration,
            options=options,
            shared=self._shared.setdefault(calibration.fingerprint, Shared()) if calibration else None,
        )
        plan = with_content(plan, request)
        if stored is not None and stored.fingerprint != plan.fingerprint:
            set_aside(path, "differs from the plan computed for this cut", "computed again")
        plan.save(path)
        return plan

    def _target(self, cut: CutRequest) -> float:
        """The ratio to request: for width methods, the ratio achieved by depth, if both are in the grid."""
        depth = [name for name in self.config.methods if methods[name].strategy == "depth"]
        if not self.config.match_depth or not depth or cut.method in depth:
            return cut.ratio
        try:
            return self.plan(CutRequest(depth[0], cut.ratio, self.config.seeds[0])).achieved_ratio
        except InvalidRequest:  # no number of blocks comes close: there is nothing to match
            return cut.ratio


def _stored_plan(path: Path, asked: Asked) -> PruningPlan | None:
    """Read the requested plan from a file; any other plan is renamed."""
    if not os.path.lexists(path):
        return None
    try:
        plan = PruningPlan.load(path)
    except PlanError:
        set_aside(path, "is damaged", "computed again")
        return None
    fault = asked.fault(plan)
    if fault is not None:
        set_aside(path, f"is not valid, {fault}", "computed again")
        return None
    return plan


def _set_aside_if_damaged(path: Path, key: str) -> None:
    if not os.path.lexists(path):
        return
    try:
        statistics = ActivationStatistics.load(path)
    except DataError:
        set_aside(path, "is damaged", "collected again")
        return
    if statistics.provenance.get("key") != key:
        set_aside(path, "belongs to another model or to other tokens", "collected again")
