"""Measure all cells of one model of a study, benchmark by benchmark, skipping results that exist."""

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
    state: StudyState

    @cached_property
    def _subjects(self) -> EvaluationTargets:
        return EvaluationTargets(ModelPlans(self.config, self.entry, self.store, self._note))

    def _note(self, line: str) -> None:
        """Report a line to the current view, which can change with every cell."""
        self.state.view.note(line)

    @property
    def model(self) -> LanguageModel:
        """The dense model, loaded on first access."""
        return self._subjects.plans.model

    @cached_property
    def cells(self) -> list[GridCell]:
        """The cells to measure, the dense cell first."""
        return cells_of(self.config, self.entry)

    def run(self) -> None:
        """Measure every cell; failures are recorded."""
        check_all(self.cells[0].runs, self.model)
        self.state.view.note(f"{self.model.name}: {self.model.decoder.parameters:,} parameters, {self.model.dtype}")
        self.score_together()
        for cell in self.cells:
            self.run_cell(cell)

    def run_cell(self, cell: GridCell) -> None:
        """Measure the missing benchmarks of one cell; failures are recorded."""
        self.state.view.cell_started(cell)
        with self.state.record_failures(cell.label, [cell]):
            subject = self._subjects.of(cell)
            self.state.measured.extend(self._measure(cell, subject))
            self._subjects.forget(subject)
        self.state.view.cell_done(cell)

    def prepare(self) -> None:
        """Calibrate and plan in advance for all cells; failures are reported when a cell is measured."""
        for cell in self.cells:
            if cell.cut is not None:
                with suppress(Exception):
                    self._subjects.of(cell)

    def score_together(self) -> None:
        """Measure missing results of the dense model and its depth cuts together, one pass per benchmark.

        A killed study loses at most one benchmark. Failures are ignored here, because the cell is then measured on its
        own, which records them. Streamed models are skipped, because their cuts do not fit in memory together.
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
                self.state.view.cell_started(cell)
                if subject.cell.name not in models:
                    models[subject.cell.name] = subject.make()
            members = [models[subject.cell.name] for _, subject in missing]
            shared = SharedEvaluation([member.model for member in members])
            for (cell, subject), member in zip(missing, members, strict=True):
                with suppress(Exception):
                    self._measure_run(cell, run, subject, replace(member, shared=shared))

    @cached_property
    def _identities(self) -> dict[BenchmarkRun, dict[str, Any]]:
        """Everything besides the model that determines the figures; cached, because it reads and hashes the data."""
        return {run: identity_of(run) for run in self.cells[0].runs}

    def _read(self, run: BenchmarkRun, subject: EvaluationTarget) -> list[Measurement] | None:
        """Stored figures of a benchmark of a cell; None if missing."""
        return self.store.read(self.store.path(subject.cell, run[0].name, self._identities[run]), subject.cell)

    def _measure(self, cell: GridCell, subject: EvaluationTarget) -> list[Measured]:
        """Measure a cell's benchmarks, recording failures; the model is only created if a result is missing."""
        models: list[LanguageModel] = []
        results = []
        for run in cell.runs:
            with self.state.record_failures(f"{subject.cell.label}: {run[0].name}", [cell], run):
                path = self.store.path(subject.cell, run[0].name, self._identities[run])
                measurements = self.store.read(path, subject.cell)
                if measurements is None:
                    measurements = self._taken_over(path, subject)
                if measurements is None:
                    models = models or [subject.make()]
                    measurements = self._measure_run(cell, run, subject, models[0])
                elif path not in self._reported:
                    _forget_generations(self._workspace(subject), run[0].name)
                    self.state.view.benchmark_done(cell, run, subject.cell.label, measurements, True)
                results.append(Measured(path, measurements))
        return results

    def _measure_run(
        self, cell: GridCell, run: BenchmarkRun, subject: EvaluationTarget, model: LanguageModel
    ) -> list[Measurement]:
        """Run a benchmark on a cell's model and store the results."""
        benchmark, settings = run
        path = self.store.path(subject.cell, benchmark.name, self._identities[run])
        workspace = self._workspace(subject)
        report = partial(self.state.view.benchmark_progress, cell, run)
        report(0, 1)
        dense_model = (
            self.model if benchmark.is_timing and cell.cut is not None and not self._subjects.is_streamed else None
        )
        settings = replace(settings, workspace=workspace, beside=dense_model)
        outcome = evaluate(model, subject.cell, benchmark, settings, report)
        measurements = [_with_plan(m, subject.plan) for m in outcome.measurements]
        self.store.write(path, subject.cell, measurements, outcome.samples, self._identities[run])
        _forget_generations(workspace, benchmark.name)
        self._reported.add(path)
        self.state.view.benchmark_done(cell, run, subject.cell.label, measurements, False)
        return measurements

    def _taken_over(self, path: Path, subject: EvaluationTarget) -> list[Measurement] | None:
        """Figures of the same benchmark from another cell with the same model; None if there is none."""
        stored = self.store.take_over(path, subject.cell)
        if stored is None:
            return None
        line = f"{subject.cell.label}: same model as {stored.cell.label}, measured once"
        if line not in self._reported:
            self._reported.add(line)
            self._note(line)
        return list(stored.measurements)

    @cached_property
    def _reported(self) -> set[str | Path]:
        """What was reported already: lines, and measurement files written by this study."""
        return set()

    def _workspace(self, subject: EvaluationTarget) -> Path:
        return self.store.run / "generations" / subject.cell.name


def _forget_generations(workspace: Path, benchmark: str) -> None:
    """Remove generated texts of a benchmark once its measurements and records are stored."""
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
