"""The grid of a study, spelled out before anything is loaded: which models, cut how, measured by what."""

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
        """What people read."""
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.method} {self.ratio:.0%}{seed}"


@dataclass(frozen=True)
class GridCell:
    """One model at one cut, and what is to be measured of it.

    Attributes:
        model: the model's name.
        cut: how it is cut; None for the dense model.
        runs: the benchmarks with their settings.
    """

    model: str
    cut: CutRequest | None
    runs: Sequence[BenchmarkRun]

    @property
    def label(self) -> str:
        """What people read."""
        return f"{self.model} {'dense' if self.cut is None else self.cut.label}"


def cell_settings(config: StudyConfig, entry: ModelEntry) -> EvaluationSettings:
    """How a model of the study is evaluated."""
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
    """The benchmarks of a model, once for each number of shots where they take any."""
    names = config.benchmarks if entry.benchmarks is None else entry.benchmarks
    shots = config.shots if entry.shots is None else entry.shots
    return benchmark_tasks(names, cell_settings(config, entry), shots)


def identity_of(run: BenchmarkRun) -> dict[str, Any]:
    """What decides a benchmark's figures besides the model; it reads and hashes the data."""
    benchmark, settings = run
    return {"version": benchmark.version, **benchmark.identity(settings)}


def cuts_of(config: StudyConfig, entry: ModelEntry) -> Iterator[CutRequest]:
    """A model's cuts; a method that draws nothing is not repeated for every seed."""
    for name in config.methods:
        varies = methods[name].is_random or config.vary_calibration
        for ratio in config.ratios if entry.ratios is None else entry.ratios:
            for seed in config.seeds if varies else config.seeds[:1]:
                yield CutRequest(name, ratio, seed)


def cells_of(config: StudyConfig, entry: ModelEntry) -> list[GridCell]:
    """A model's cells, the dense one first."""
    runs = model_runs(config, entry)
    cells = [GridCell(entry.title, None, runs)]
    for cut in cuts_of(config, entry):
        own = [run for run in runs if cut.ratio in entry.benchmark_ratios.get(run[0].name, [cut.ratio])]
        if own:
            cells.append(GridCell(entry.title, cut, own))
    return cells


def trunk_of(cells: Sequence[GridCell]) -> list[int]:
    """Which of a model's cells can be scored in one pass: the whole model and its cuts in depth, where that is several.

    They share all blocks before the first one removed; what a benchmark lets the model write is nobody else's.
    """
    found = [
        number
        for number, cell in enumerate(cells)
        if (cell.cut is None or methods[cell.cut.method].strategy == "depth")
        and any(benchmark.scores_likelihoods for benchmark, _ in cell.runs)
    ]
    return found if len(found) > 1 else []


def study_grid(config: StudyConfig) -> list[GridCell]:
    """Every cell of a study, in the order in which they are measured."""
    return [cell for entry in config.models for cell in cells_of(config, entry)]
