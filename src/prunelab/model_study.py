"""All cells of one model of a study: calibrate once, then plan, cut and measure, each only where it is missing."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.comparison import Difference
from prunelab.config import StudyConfig
from prunelab.errors import DataError, InvalidRequest, PlanError, PrunelabError
from prunelab.evaluate import Run as BenchmarkRun
from prunelab.evaluate import check_all, dense_cell, evaluate
from prunelab.fingerprint import content_hash
from prunelab.grid import Cut, GridCell, cells_of, identity_of
from prunelab.loading import LanguageModel, load_model
from prunelab.methods import methods
from prunelab.model_entry import ModelEntry
from prunelab.plan import PruningPlan
from prunelab.progress import StudyView
from prunelab.prune import calibrated, draw_for, make_pruning_plan, needs_calibration, pruned_model, statistics_key
from prunelab.results import Cell, Measurement, ResultsStore, set_aside, slug
from prunelab.run import Failure, Measured, compared_to_dense


@dataclass(frozen=True)
class Found:
    """What a study has found so far, and who is told."""

    view: StudyView
    measured: list[Measured] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def recorded(self, what: str, cells: Sequence[GridCell] = (), run: BenchmarkRun | None = None) -> Iterator[None]:
        """What fails in the block is recorded, and the grid goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (it is kept whole in failures.json)
            fault = not isinstance(error, PrunelabError)
            text = "".join(traceback.format_exception(error)) if fault else str(error)
            self.failures.append(Failure(what, text, fault))
            self.view.failed(cells, run, what, error)


@dataclass
class ModelStudy:
    """All cells of one model."""

    config: StudyConfig
    entry: ModelEntry
    store: ResultsStore
    found: Found

    @cached_property
    def model(self) -> LanguageModel:
        """The dense model; loaded when it is first asked for."""
        device, dtype = self.entry.device or self.config.device, self.entry.dtype or self.config.dtype
        model = load_model(self.entry.path, device=device, dtype=dtype)
        return model.with_model(model.model, self.entry.name)

    @cached_property
    def cells(self) -> list[GridCell]:
        """What is to be measured, the dense cell first."""
        return cells_of(self.config, self.entry)

    def run(self) -> None:
        """Measure every cell; one that fails is recorded."""
        check_all(self.cells[0].runs, self.model)
        self.found.view.note(f"{self.model.name}: {self.model.decoder.parameters:,} parameters, {self.model.dtype}")
        for cell in self.cells:
            self.found.view.cell_started(cell)
            if cell.cut is None:
                self._measure(cell, dense_cell(self.model), lambda: self.model)
            else:
                with self.found.recorded(cell.label, [cell]):
                    self._pruned_cell(cell, cell.cut)
            self.found.view.cell_done(cell)

    def calibration(self, seed: int) -> CalibrationSet:
        """The calibration set of a seed; drawn once."""
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
    def _statistics(self) -> dict[str, ActivationStatistics]:
        return {}

    def statistics(self, seed: int) -> ActivationStatistics:
        """The statistics of a seed's calibration set; collected once, and kept in the run."""
        calibration = self.calibration(seed)
        key = statistics_key(self.model, calibration)
        if key not in self._statistics:
            path = self.store.run / "statistics" / f"{slug(self.model.name)}-{key[:8]}.safetensors"
            _set_aside_if_damaged(path)
            if not path.exists():
                self.found.view.note(f"{self.model.name}: calibrating on {calibration.token_ids.numel():,} tokens")
            self._statistics[key] = calibrated(self.model, calibration, path)
        return self._statistics[key]

    def _pruned_cell(self, cell: GridCell, cut: Cut) -> None:
        plan = self.plan(cut)
        pruned = dense_cell(self.model).model_copy(
            update={
                "method": cut.method,
                "ratio": cut.ratio,
                "achieved_ratio": plan.achieved_ratio,
                "seed": cut.seed,
                "plan": plan.fingerprint,
            }
        )

        def make() -> LanguageModel:
            if plan.compensation == "none":
                return pruned_model(self.model, plan)
            return pruned_model(self.model, plan, self.statistics(cut.seed), self.calibration(cut.seed))

        own = self._measure(cell, pruned, make, plan)
        dense = [one for one in self.found.measured if one.primary.method == "dense"]
        self.found.differences.extend(compared_to_dense([*dense, *own]))

    def plan(self, cut: Cut) -> PruningPlan:
        """The cut's plan, from the run's folder where it is there."""
        options = self.config.pruning.options(cut.seed)
        target = self._target(cut)
        used = needs_calibration(cut.method, options)
        calibration = self.calibration(cut.seed) if used else None
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
        name = slug(f"{self.model.name}-{cut.method}-{100 * cut.ratio:g}-s{cut.seed}-{request[:8]}")
        path = self.store.run / "plans" / f"{name}.json"
        if path.exists():
            try:
                return PruningPlan.load(path)
            except PlanError:
                set_aside(path, "is damaged", "made anew")
        plan = make_pruning_plan(
            self.model,
            cut.method,
            target,
            statistics=self.statistics(cut.seed) if used else None,
            calibration=calibration,
            options=options,
        )
        plan.save(path)
        return plan

    def _target(self, cut: Cut) -> float:
        """The ratio to ask for: depth's achieved one for the others, where both are in the grid."""
        depth = [name for name in self.config.methods if methods[name].strategy == "depth"]
        if not self.config.match_depth or not depth or cut.method in depth:
            return cut.ratio
        try:
            return self.plan(Cut(depth[0], cut.ratio, self.config.seeds[0])).achieved_ratio
        except InvalidRequest:  # no whole number of blocks comes near: the others have nothing to match
            return cut.ratio

    @cached_property
    def _identities(self) -> dict[BenchmarkRun, dict[str, Any]]:
        """What decides each run's figures besides the model; found once, since it reads and hashes the data."""
        return {run: identity_of(run) for run in self.cells[0].runs}

    def _measure(
        self, cell: GridCell, model: Cell, make: Callable[[], LanguageModel], plan: PruningPlan | None = None
    ) -> list[Measured]:
        """Every benchmark of a cell; the model is only made where something is missing, one that fails is recorded."""
        made: list[LanguageModel] = []
        own = []
        for run in cell.runs:
            benchmark, settings = run
            with self.found.recorded(f"{model.label}: {benchmark.name}", [cell], run):
                path = self.store.path(model, benchmark.name, self._identities[run])
                workspace = self.store.run / "generations" / model.name
                found = self.store.read(path)
                kept = found is not None
                if found is None:
                    made = made or [make()]
                    report = partial(self.found.view.benchmark_progress, cell, run)
                    report(0, 1)
                    outcome = evaluate(made[0], model, benchmark, replace(settings, workspace=workspace), report)
                    found = [_with_plan(m, plan) for m in outcome.measurements]
                    self.store.write(path, model, found, outcome.samples, self._identities[run])
                _forget_generations(workspace, benchmark.name)
                self.found.view.benchmark_done(cell, run, model.label, found, kept)
                own.append(Measured(path, found))
        self.found.measured.extend(own)
        return own


def _set_aside_if_damaged(path: Path) -> None:
    if path.exists():
        try:
            ActivationStatistics.load(path)
        except DataError:
            set_aside(path, "is damaged", "collected anew")


def _forget_generations(workspace: Path, benchmark: str) -> None:
    """Remove what the model wrote for a benchmark whose measurements, records included, are written."""
    for path in workspace.glob(f"{benchmark}-*"):
        path.unlink()
    for folder in (workspace, workspace.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            shutil.rmtree(folder)


def _with_plan(measurement: Measurement, plan: PruningPlan | None) -> Measurement:
    if plan is None:
        return measurement
    shares = {"share_of_model": plan.share_of_model, "compensation": plan.compensation}
    return measurement.model_copy(update={"details": {**measurement.details, **shares}})
