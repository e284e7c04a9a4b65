"""All cells of one model of a study: each measured, benchmark by benchmark, only where it is missing."""

from __future__ import annotations

import glob
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.evaluation.runner import BenchmarkTask as BenchmarkRun
from prunelab.evaluation.runner import check_all, evaluate
from prunelab.inference.shared_scoring import SharedEvaluation
from prunelab.studies.grid import GridCell, cells_of, identity_of, trunk_of
from prunelab.studies.plans import ModelPlans
from prunelab.studies.run import Measured
from prunelab.studies.state import StudyState
from prunelab.studies.targets import TEMPORARY_CHECKPOINTS, EvaluationTarget, EvaluationTargets

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.pruning.plan import PruningPlan
    from prunelab.studies.config import StudyConfig
    from prunelab.studies.model_entry import ModelEntry
    from prunelab.studies.store import Measurement, ResultsStore

__all__ = ["TEMPORARY_CHECKPOINTS", "EvaluationTarget", "ModelStudy", "StudyState"]


@dataclass
class ModelStudy:
    """All cells of one model."""

    config: StudyConfig
    entry: ModelEntry
    store: ResultsStore
    found: StudyState

    @cached_property
    def _subjects(self) -> EvaluationTargets:
        return EvaluationTargets(ModelPlans(self.config, self.entry, self.store, self._note))

    def _note(self, line: str) -> None:
        """Says a line of news; who is told may be another with every cell."""
        self.found.view.note(line)

    @property
    def model(self) -> LanguageModel:
        """The dense model; loaded when it is first asked for."""
        return self._subjects.plans.model

    @cached_property
    def cells(self) -> list[GridCell]:
        """What is to be measured, the dense cell first."""
        return cells_of(self.config, self.entry)

    def run(self) -> None:
        """Measure every cell; one that fails is recorded."""
        check_all(self.cells[0].runs, self.model)
        self.found.view.note(f"{self.model.name}: {self.model.decoder.parameters:,} parameters, {self.model.dtype}")
        self.score_together()
        for cell in self.cells:
            self.run_cell(cell)

    def run_cell(self, cell: GridCell) -> None:
        """Measure one cell, as far as it is not measured already; what fails is recorded."""
        self.found.view.cell_started(cell)
        with self.found.record_failures(cell.label, [cell]):
            subject = self._subjects.of(cell)
            self.found.measured.extend(self._measure(cell, subject))
            self._subjects.forget(subject)
        self.found.view.cell_done(cell)

    def prepare(self) -> None:
        """Calibrate and plan for all cells, so that what measures them finds both; a cut that fails reports itself."""
        for cell in self.cells:
            if cell.cut is not None:
                with suppress(Exception):
                    self._subjects.of(cell)

    def score_together(self) -> None:
        """Measure what is missing of the dense model and its cuts in depth in one pass a benchmark, where one can.

        Benchmark by benchmark, so that a study that is killed loses one. What fails here is tried again, and recorded,
        when its cell's turn comes. Cuts of a model too large for memory are not in memory together either.
        """
        if self._subjects.is_streamed:
            return
        different: dict[str, tuple[GridCell, EvaluationTarget]] = {}
        for cell in (self.cells[number] for number in trunk_of(self.cells)):
            with suppress(Exception):
                subject = self._subjects.of(cell)
                different.setdefault(subject.cell.key, (cell, subject))
        models: dict[str, LanguageModel] = {}
        for run in self.cells[0].runs:
            if not run[0].scores_likelihoods:
                continue
            missing = [(c, s) for c, s in different.values() if run in c.runs and self._read(run, s) is None]
            if len(missing) < 2:
                continue
            for cell, subject in missing:
                self.found.view.cell_started(cell)
                if subject.cell.name not in models:
                    models[subject.cell.name] = subject.make()
            members = [models[subject.cell.name] for _, subject in missing]
            shared = SharedEvaluation([member.model for member in members])
            for (cell, subject), member in zip(missing, members, strict=True):
                with suppress(Exception):
                    self._measure_run(cell, run, subject, replace(member, shared=shared))

    @cached_property
    def _identities(self) -> dict[BenchmarkRun, dict[str, Any]]:
        """What decides each run's figures besides the model; found once, since it reads and hashes the data."""
        return {run: identity_of(run) for run in self.cells[0].runs}

    def _read(self, run: BenchmarkRun, subject: EvaluationTarget) -> list[Measurement] | None:
        """A benchmark's figures of a cell, where they are there."""
        return self.store.read(self.store.path(subject.cell, run[0].name, self._identities[run]), subject.cell)

    def _measure(self, cell: GridCell, subject: EvaluationTarget) -> list[Measured]:
        """Every benchmark of a cell; the model is only made where something is missing, one that fails is recorded."""
        made: list[LanguageModel] = []
        own = []
        for run in cell.runs:
            with self.found.record_failures(f"{subject.cell.label}: {run[0].name}", [cell], run):
                path = self.store.path(subject.cell, run[0].name, self._identities[run])
                found = self.store.read(path, subject.cell)
                if found is None:
                    found = self._taken_over(path, subject)
                if found is None:
                    made = made or [subject.make()]
                    found = self._measure_run(cell, run, subject, made[0])
                elif path not in self._told:
                    _forget_generations(self._workspace(subject), run[0].name)
                    self.found.view.benchmark_done(cell, run, subject.cell.label, found, True)
                own.append(Measured(path, found))
        return own

    def _measure_run(
        self, cell: GridCell, run: BenchmarkRun, subject: EvaluationTarget, model: LanguageModel
    ) -> list[Measurement]:
        """Run a benchmark on a cell's model and keep what it finds."""
        benchmark, settings = run
        path = self.store.path(subject.cell, benchmark.name, self._identities[run])
        workspace = self._workspace(subject)
        report = partial(self.found.view.benchmark_progress, cell, run)
        report(0, 1)
        beside = self.model if benchmark.is_timing and cell.cut is not None and not self._subjects.is_streamed else None
        settings = replace(settings, workspace=workspace, beside=beside)
        outcome = evaluate(model, subject.cell, benchmark, settings, report)
        found = [_with_plan(m, subject.plan) for m in outcome.measurements]
        self.store.write(path, subject.cell, found, outcome.samples, self._identities[run])
        _forget_generations(workspace, benchmark.name)
        self._told.add(path)
        self.found.view.benchmark_done(cell, run, subject.cell.label, found, False)
        return found

    def _taken_over(self, path: Path, subject: EvaluationTarget) -> list[Measurement] | None:
        """A benchmark's figures of another cell that is the same model, where there is one."""
        kept = self.store.take_over(path, subject.cell)
        if kept is None:
            return None
        line = f"{subject.cell.label}: the same model as {kept.cell.label}, measured once"
        if line not in self._told:
            self._told.add(line)
            self._note(line)
        return list(kept.measurements)

    @cached_property
    def _told(self) -> set[str | Path]:
        """What was said already: lines, and measurement files that this study has written."""
        return set()

    def _workspace(self, subject: EvaluationTarget) -> Path:
        return self.store.run / "generations" / subject.cell.name


def _forget_generations(workspace: Path, benchmark: str) -> None:
    """Remove what the model wrote for a benchmark whose measurements, records included, are written."""
    for path in workspace.glob(f"{glob.escape(benchmark)}-*"):
        path.unlink()
    for folder in (workspace, workspace.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            shutil.rmtree(folder)


def _with_plan(measurement: Measurement, plan: PruningPlan | None) -> Measurement:
    if plan is None:
        return measurement
    shares = {"share_of_model": plan.share_of_model, "compensation": plan.compensation}
    return measurement.model_copy(update={"details": {**measurement.details, **shares}})
