"""All cells of one model of a study: calibrate once, then plan, cut and measure, each only where it is missing."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.checkpoint.streaming import save_streamed
from prunelab.comparison import Difference
from prunelab.config import StudyConfig
from prunelab.errors import DataError, InvalidRequest, PlanError, PrunelabError
from prunelab.evaluate import Run as BenchmarkRun
from prunelab.evaluate import check_all, dense_cell, evaluate
from prunelab.fingerprint import content_hash
from prunelab.grid import Cut, GridCell, cells_of, identity_of
from prunelab.loading import LanguageModel
from prunelab.memory import parse_memory
from prunelab.methods import Shared, methods
from prunelab.model_entry import ModelEntry
from prunelab.plan import PruningPlan
from prunelab.progress import StudyView
from prunelab.prune import (
    calibrated,
    check_plan,
    draw_for,
    make_pruning_plan,
    needs_calibration,
    pruned_model,
    statistics_key,
)
from prunelab.results import Cell, Measurement, ResultsStore, set_aside, slug
from prunelab.run import Failure, Measured
from prunelab.siblings import Siblings
from prunelab.spreading import open_to_run
from prunelab.streamed import StreamedModel, open_model

MADE = "made"
"""Where cuts of a model too large for memory lie in a run's folder while they are measured."""


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


@dataclass(frozen=True)
class Subject:
    """What is measured in a cell.

    Attributes:
        cell: the model as results know it.
        make: makes the model.
        plan: how it is cut; None for the dense model.
    """

    cell: Cell
    make: Callable[[], LanguageModel]
    plan: PruningPlan | None = None


@dataclass
class ModelStudy:
    """All cells of one model."""

    config: StudyConfig
    entry: ModelEntry
    store: ResultsStore
    found: Found

    @cached_property
    def model(self) -> LanguageModel:
        """The dense model; loaded when it is first asked for, or streamed where it is too large to be cut in memory."""
        model = open_model(self.entry.path, device=self._device, dtype=self._dtype, memory=self._memory)
        return replace(model, name=self.entry.name or model.name)

    @property
    def _device(self) -> str | None:
        return self.entry.device or self.config.device

    @property
    def _dtype(self) -> str | None:
        return self.entry.dtype or self.config.dtype

    @property
    def _memory(self) -> int | None:
        return parse_memory(self.config.memory)

    @cached_property
    def cells(self) -> list[GridCell]:
        """What is to be measured, the dense cell first."""
        return cells_of(self.config, self.entry)

    def run(self) -> None:
        """Measure every cell; one that fails is recorded."""
        check_all(self.cells[0].runs, self.model)
        self.found.view.note(f"{self.model.name}: {self.model.decoder.parameters:,} parameters, {self.model.dtype}")
        self._score_together()
        for cell in self.cells:
            self.run_cell(cell)

    def run_cell(self, cell: GridCell) -> None:
        """Measure one cell, as far as it is not measured already; what fails is recorded."""
        self.found.view.cell_started(cell)
        with self.found.recorded(cell.label, [cell]):
            subject = self._subject(cell)
            self.found.measured.extend(self._measure(cell, subject))
            self._forget_written(subject)
        self.found.view.cell_done(cell)

    def prepare(self) -> None:
        """Calibrate and plan for all cells, so that what measures them finds both; a cut that fails reports itself."""
        for cell in self.cells:
            if cell.cut is not None:
                with suppress(Exception):
                    self._subject(cell)

    def _subject(self, cell: GridCell) -> Subject:
        """What is measured in a cell; its plan is made where there is none."""
        dense = dense_cell(self.model)
        if cell.cut is None:
            return Subject(dense, lambda: self._to_run(self.entry.path) if self._is_streamed else self.model)
        cut, plan = cell.cut, self.plan(cell.cut)
        known = {
            "method": cut.method,
            "ratio": cut.ratio,
            "achieved_ratio": plan.achieved_ratio,
            "seed": cut.seed,
            "plan": plan.fingerprint,
        }

        def make() -> LanguageModel:
            if isinstance(self.model, StreamedModel):
                return self._written(self.model, plan, cut)
            if plan.compensation == "none":
                return pruned_model(self.model, plan)
            return pruned_model(self.model, plan, self.statistics(cut.seed), self.calibration(cut.seed))

        return Subject(dense.model_copy(update=known), make, plan)

    @property
    def _is_streamed(self) -> bool:
        return isinstance(self.model, StreamedModel)

    def _to_run(self, path: str) -> LanguageModel:
        """A checkpoint, run from wherever there is room."""
        model = open_to_run(path, device=self._device, dtype=self._dtype, memory=self._memory)
        return replace(model, name=self.model.name)

    def _written(self, model: StreamedModel, plan: PruningPlan, cut: Cut) -> LanguageModel:
        """A cut of a model too large for memory: written, and run from where it lies until its cell is done."""
        statistics = None if plan.compensation == "none" else self.statistics(cut.seed)
        check_plan(model, plan, statistics)
        place = self.store.run / MADE / plan.fingerprint
        save_streamed(model, plan, statistics, place, overwrite=True)
        return self._to_run(str(place))

    def _forget_written(self, subject: Subject) -> None:
        """Remove what was written of a cut to measure it."""
        if subject.plan is not None and self._is_streamed:
            shutil.rmtree(self.store.run / MADE / subject.plan.fingerprint, ignore_errors=True)

    def _score_together(self) -> None:
        """Measure what is missing of the dense model and its cuts in depth in one pass a benchmark, where one can.

        Benchmark by benchmark, so that a study that is killed loses one. What fails here is tried again, and recorded,
        when its cell's turn comes. Cuts of a model too large for memory are not in memory together either.
        """
        if self._is_streamed:
            return
        subjects: list[tuple[GridCell, Subject]] = []
        for cell in self.cells:
            if cell.cut is None or methods[cell.cut.method].strategy == "depth":
                with suppress(Exception):
                    subjects.append((cell, self._subject(cell)))
        models: dict[str, LanguageModel] = {}
        for run in self.cells[0].runs:
            if not run[0].scores_likelihoods:
                continue
            missing = [(c, s) for c, s in subjects if run in c.runs and self._read(run, s) is None]
            if len(missing) < 2:
                continue
            for cell, subject in missing:
                self.found.view.cell_started(cell)
                if subject.cell.name not in models:
                    models[subject.cell.name] = subject.make()
            members = [models[subject.cell.name] for _, subject in missing]
            siblings = Siblings([member.model for member in members])
            for (cell, subject), member in zip(missing, members, strict=True):
                with suppress(Exception):
                    self._measure_run(cell, run, subject, replace(member, siblings=siblings))

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
    def _shared(self) -> dict[str, Shared]:
        """What plans found, by the calibration's fingerprint."""
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
            self._statistics[key] = calibrated(self.model, calibration, path, memory=self._memory)
        return self._statistics[key]

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
            shared=self._shared.setdefault(calibration.fingerprint, Shared()) if calibration else None,
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

    def _read(self, run: BenchmarkRun, subject: Subject) -> list[Measurement] | None:
        """A benchmark's figures of a cell, where they are there."""
        return self.store.read(self.store.path(subject.cell, run[0].name, self._identities[run]))

    def _measure(self, cell: GridCell, subject: Subject) -> list[Measured]:
        """Every benchmark of a cell; the model is only made where something is missing, one that fails is recorded."""
        made: list[LanguageModel] = []
        own = []
        for run in cell.runs:
            with self.found.recorded(f"{subject.cell.label}: {run[0].name}", [cell], run):
                path = self.store.path(subject.cell, run[0].name, self._identities[run])
                found = self.store.read(path)
                if found is None:
                    made = made or [subject.make()]
                    found = self._measure_run(cell, run, subject, made[0])
                elif path not in self._told:
                    _forget_generations(self._workspace(subject), run[0].name)
                    self.found.view.benchmark_done(cell, run, subject.cell.label, found, True)
                own.append(Measured(path, found))
        return own

    def _measure_run(
        self, cell: GridCell, run: BenchmarkRun, subject: Subject, model: LanguageModel
    ) -> list[Measurement]:
        """Run a benchmark on a cell's model and keep what it finds."""
        benchmark, settings = run
        path = self.store.path(subject.cell, benchmark.name, self._identities[run])
        workspace = self._workspace(subject)
        report = partial(self.found.view.benchmark_progress, cell, run)
        report(0, 1)
        outcome = evaluate(model, subject.cell, benchmark, replace(settings, workspace=workspace), report)
        found = [_with_plan(m, subject.plan) for m in outcome.measurements]
        self.store.write(path, subject.cell, found, outcome.samples, self._identities[run])
        _forget_generations(workspace, benchmark.name)
        self._told.add(path)
        self.found.view.benchmark_done(cell, run, subject.cell.label, found, False)
        return found

    @cached_property
    def _told(self) -> set[Path]:
        """Measurement files that this study has written, and told about."""
        return set()

    def _workspace(self, subject: Subject) -> Path:
        return self.store.run / "generations" / subject.cell.name


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
