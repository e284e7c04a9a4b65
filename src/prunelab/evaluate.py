"""Run benchmarks on a model: what `prunelab evaluate` and the study share."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from prunelab.benchmarks import Benchmark, EvaluationSettings
from prunelab.benchmarks.base import Progress
from prunelab.loading import LanguageModel
from prunelab.prune import versions
from prunelab.results import Cell, Measurement, Scalar, measurements_of


@dataclass(frozen=True)
class Outcome:
    """A benchmark's measurements and sample records."""

    measurements: list[Measurement]
    samples: Sequence[object]


def check_all(benchmarks: Sequence[Benchmark], settings: EvaluationSettings) -> None:
    """Find out what is missing before the first token is computed; raises the first remedy."""
    for benchmark in benchmarks:
        benchmark.check(settings)


def evaluate(
    model: LanguageModel,
    cell: Cell,
    benchmark: Benchmark,
    settings: EvaluationSettings,
    progress: Progress | None = None,
) -> Outcome:
    """Run one benchmark."""
    start = time.perf_counter()
    evaluation = benchmark.evaluate(model, settings, progress)
    seconds = time.perf_counter() - start
    details: dict[str, Scalar] = {"limit": settings.limit, "hardware": hardware(model.device), **versions()}
    return Outcome(measurements_of(cell, benchmark, evaluation, seconds, details), evaluation.samples)


def hardware(device: torch.device) -> str:
    """What the figures were measured on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def dense_cell(model: LanguageModel) -> Cell:
    """A model evaluated for itself."""
    return Cell(model=model.name, fingerprint=model.fingerprint, dtype=model.dtype)
