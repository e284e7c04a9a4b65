"""The study: every model whole and pruned every way, measured by every benchmark, on one screen.

A cell is one model at one cut. What a cell needs that exists already (statistics, plans, measurements) is not computed
again, so a study that was killed goes on where it was, and a second run computes nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prunelab.benchmarks import EvaluationSettings
from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.comparison import Difference, adjusted, difference
from prunelab.config import ModelEntry, StudyConfig, write_config
from prunelab.errors import InvalidRequest, PlanError, PrunelabError
from prunelab.evaluate import Run as BenchmarkRun
from prunelab.evaluate import check_all, dense_cell, evaluate, runs_of
from prunelab.files import require_place
from prunelab.fingerprint import content_hash
from prunelab.loading import LanguageModel, load_model
from prunelab.methods import methods
from prunelab.plan import PruningPlan
from prunelab.pocket.data import data_root
from prunelab.prune import calibrated, draw_for, make_pruning_plan, needs_calibration, pruned_model, statistics_key
from prunelab.report.markdown import write_report
from prunelab.results import Cell, Measurement, ResultsStore, slug
from prunelab.run import Failure, Measured, Run

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Found:
    """What a study has found so far."""

    measured: list[Measured] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """One column of the grid: a method, a ratio and a seed."""

    method: str
    ratio: float
    seed: int

    @property
    def label(self) -> str:
        """What people read."""
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.method} {self.ratio:.0%}{seed}"


def run_study(config: StudyConfig, say: Say = print) -> Run:
    """Run the grid, or what is missing of it.

    Raises:
        PrunelabError: before anything is computed, where a benchmark cannot run.
    """
    require_place(config.out / "study.yaml")
    written, config = (
        config,
        config.model_copy(
            update={"datasets_root": data_root(config.datasets_root, [entry.path for entry in config.models])}
        ),
    )
    store = ResultsStore(config.out)
    settings = EvaluationSettings(
        limit=config.limit,
        window=config.window,
        chat_template=config.chat_template,
        allow_untrained_punkt=config.allow_untrained_punkt,
        allow_code_execution=config.allow_code_execution,
        completions=config.completions,
        temperature=config.temperature,
        workspace=config.out / "generations",
        seed=config.seeds[0],
        datasets_root=config.datasets_root,
    )
    names = dict.fromkeys(name for entry in config.models for name in entry.benchmarks or config.benchmarks)
    check_all(runs_of(names, settings, config.shots))
    write_config(config.out / "study.yaml", written)
    found = _Found()
    for entry in config.models:
        with _recorded(found.failures, entry.path, say):
            _ModelStudy(config, entry, store, settings, say, found).run()
    run = Run(config.out, config, found.measured, found.differences, found.failures)
    run.write()
    write_report(run)
    return run


class _recorded:  # noqa: N801  (a context manager, used like a function)
    """A cell that fails is recorded, and the grid goes on."""

    def __init__(self, failures: list[Failure], cell: str, say: Say) -> None:
        self.failures, self.cell, self.say = failures, cell, say

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        fault = not isinstance(error, PrunelabError)
        text = "".join(traceback.format_exception(error)) if fault else str(error)
        self.failures.append(Failure(self.cell, text, fault))
        self.say(f"{self.cell}: failed: {error}")
        return True


@dataclass
class _ModelStudy:
    """All cells of one model."""

    config: StudyConfig
    entry: ModelEntry
    store: ResultsStore
    settings: EvaluationSettings
    say: Say
    found: _Found

    @cached_property
    def model(self) -> LanguageModel:
        model = load_model(self.entry.path, device=self.config.device, dtype=self.entry.dtype or self.config.dtype)
        return model.with_model(model.model, self.entry.name)

    @cached_property
    def runs(self) -> list[BenchmarkRun]:
        return runs_of(self.entry.benchmarks or self.config.benchmarks, self.settings, self.config.shots)

    def run(self) -> None:
        check_all(self.runs, self.model)
        self.say(f"{self.model.name}: {self.model.decoder.parameters:,} parameters, {self.model.dtype}")
        self._measure(dense_cell(self.model), lambda: self.model)
        for cut in self.cuts():
            with _recorded(self.found.failures, f"{self.model.name} {cut.label}", self.say):
                self._pruned_cell(cut)

    def cuts(self) -> Iterator[Cut]:
        """The grid's columns; a method that draws nothing is not repeated for every seed."""
        for name in self.config.methods:
            varies = methods[name].is_random or self.config.vary_calibration
            for ratio in self.config.ratios:
                for seed in self.config.seeds if varies else self.config.seeds[:1]:
                    yield Cut(name, ratio, seed)

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
            if not path.exists():
                self.say(f"{self.model.name}: calibrating on {calibration.token_ids.numel():,} tokens")
            self._statistics[key] = calibrated(self.model, calibration, path)
        return self._statistics[key]

    def _pruned_cell(self, cut: Cut) -> None:
        plan = self.plan(cut)
        cell = dense_cell(self.model).model_copy(
            update={
                "method": cut.method,
                "ratio": cut.ratio,
                "achieved_ratio": plan.achieved_ratio,
                "seed": cut.seed,
                "plan": plan.fingerprint,
            }
        )
        statistics = None if plan.compensation == "none" else self.statistics(cut.seed)
        self._measure(cell, lambda: pruned_model(self.model, plan, statistics), plan)
        self._compare(cell)

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
            except PlanError as error:
                self.say(f"{error}")
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
    def _identities(self) -> list[dict[str, Any]]:
        """What decides each run's figures besides the model; found once, since it reads and hashes the data."""
        return [{"version": benchmark.version, **benchmark.identity(settings)} for benchmark, settings in self.runs]

    def _paths(self, cell: Cell) -> list[tuple[BenchmarkRun, Path]]:
        """Every run, and where its measurements of a cell are kept."""
        return [
            (run, self.store.path(cell, run[0].name, identity))
            for run, identity in zip(self.runs, self._identities, strict=True)
        ]

    def _measure(self, cell: Cell, make: Callable[[], LanguageModel], plan: PruningPlan | None = None) -> None:
        """Every benchmark of a cell; the model is only made where something is missing, one that fails is recorded."""
        made: list[LanguageModel] = []
        for run, path in self._paths(cell):
            with _recorded(self.found.failures, f"{cell.label}: {run[0].name}", self.say):
                found = self.store.read(path)
                if found is None:
                    if not made:
                        made.append(make())
                    outcome = evaluate(made[0], cell, *run)
                    found = [_with_plan(m, plan) for m in outcome.measurements]
                    self.store.write(path, cell, found, outcome.samples)
                    self.say(_line(cell, found))
                self.found.measured.append(Measured(path, found))

    def _compare(self, cell: Cell) -> None:
        """Paired tests of a pruned cell against the dense model, adjusted over its benchmarks."""
        found: list[Difference] = []
        both = zip(self._paths(dense_cell(self.model)), self._paths(cell), strict=True)
        for (run, dense), (_, pruned) in both:
            primary = [m for m in self.store.read(pruned) or [] if m.primary]
            compared = difference(run[0], primary[0], dense, pruned) if primary else None
            found += [compared] if compared is not None else []
        self.found.differences.extend(adjusted(found))


def _with_plan(measurement: Measurement, plan: PruningPlan | None) -> Measurement:
    if plan is None:
        return measurement
    shares = {"share_of_model": plan.share_of_model, "compensation": plan.compensation}
    return measurement.model_copy(update={"details": {**measurement.details, **shares}})


def _line(cell: Cell, measurements: list[Measurement]) -> str:
    """One line for a figure as it arrives."""
    primary = next(m for m in measurements if m.primary)
    shots = "" if primary.shots is None else f" {primary.shots}-shot"
    value = f"{primary.metric} {primary.value:.4g} ({primary.seconds:.1f} s)"
    return f"{cell.label}: {primary.benchmark}{shots} {value}"
