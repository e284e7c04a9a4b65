"""The cells of a study, listed before anything is loaded: models, cuts and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelab.evaluation.benchmarks import EvaluationSettings
from prunelab.evaluation.runner import BenchmarkTask as BenchmarkRun
from prunelab.evaluation.runner import benchmark_tasks
from prunelab.pruning.methods import methods

if TYPE_CHECKING:
    from prunelab.studies.config import StudyConfig
    from prunelab.studies.model_entry import ModelEntry


@dataclass(frozen=True)
class CutRequest:
    """One column of the grid: a method, a ratio and a seed."""

    method: str
    ratio: float
    seed: int

    @property
    def label(self) -> str:
        """Label for people."""
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.method} {self.ratio:.0%}{seed}"


@dataclass(frozen=True)
class GridCell:
    """One model at one cut, with its benchmarks.

    Attributes:
        model: the model's name.
        cut: the cut; None for the dense model.
        runs: benchmarks with their settings.
    """

    model: str
    cut: CutRequest | None
    runs: Sequence[BenchmarkRun]

    @property
    def label(self) -> str:
        """Label for people."""
        return f"{self.model} {'dense' if self.cut is None else self.cut.label}"


def cell_settings(config: StudyConfig, entry: ModelEntry) -> EvaluationSettings:
    """Evaluation settings of a model of the study."""
    return EvaluationSettings(
        limit=config.limit,
        window=config.window,
        chat_template=entry.chat_template or config.chat_template,
        allow_untrained_punkt=config.allow_untrained_punkt,
        allow_code_execution=config.allow_code_execution,
        completions=config.completions,
        runtime=config.runtime,
        temperature=config.temperature,
        workspace=config.out / "generations",
        seed=config.seeds[0],
        datasets_root=config.datasets_root,
    )


def model_runs(config: StudyConfig, entry: ModelEntry) -> list[BenchmarkRun]:
    """The benchmarks of a model, once per number of few-shot examples if they use any."""
    names = config.benchmarks if entry.benchmarks is None else entry.benchmarks
    shots = config.shots if entry.shots is None else entry.shots
    return benchmark_tasks(names, cell_settings(config, entry), shots)


def identity_of(run: BenchmarkRun) -> dict[str, Any]:
    """Everything besides the model that determines a benchmark's figures; reads and hashes the data."""
    benchmark, settings = run
    return {"version": benchmark.version, **benchmark.identity(settings)}


def cuts_of(config: StudyConfig, entry: ModelEntry) -> Iterator[CutRequest]:
    """Yield the cuts of a model; deterministic methods are not repeated per seed."""
    for name in config.methods:
        varies = methods[name].is_random or config.vary_calibration
        for ratio in config.ratios if entry.ratios is None else entry.ratios:
            for seed in config.seeds if varies else config.seeds[:1]:
                yield CutRequest(name, ratio, seed)


def cells_of(config: StudyConfig, entry: ModelEntry) -> list[GridCell]:
    """The cells of a model, the dense one first."""
    runs = model_runs(config, entry)
    cells = [GridCell(entry.title, None, runs)]
    for cut in cuts_of(config, entry):
        cell_runs = [run for run in runs if cut.ratio in entry.benchmark_ratios.get(run[0].name, [cut.ratio])]
        if cell_runs:
            cells.append(GridCell(entry.title, cut, cell_runs))
    return cells


def trunk_of(cells: Sequence[GridCell]) -> list[int]:
    """Indexes of the cells that can be scored in one pass: the dense model and its depth cuts, if there are several.

    They share all blocks before the first removed one. Only likelihoods are shared; generated text is not.
    """
    indexes = [
        number
        for number, cell in enumerate(cells)
        if (cell.cut is None or methods[cell.cut.method].strategy == "depth")
        and any(benchmark.scores_likelihoods for benchmark, _ in cell.runs)
    ]
    return indexes if len(indexes) > 1 else []


def study_grid(config: StudyConfig) -> list[GridCell]:
    """Every cell of a study, in the order of measurement."""
    return [cell for entry in config.models for cell in cells_of(config, entry)]
