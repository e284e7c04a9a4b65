"""Run benchmarks on a model; `prunelab evaluate` and the study share this module."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks import Benchmark, EvaluationSettings, find_benchmark
from prunelab.evaluation.records import CellId, Measurement, Scalar, measurements_of
from prunelab.io.lazy import psutil, torch
from prunelab.io.versions import versions
from prunelab.models.families import families, find_family
from prunelab.models.loading import LanguageModel, load_config, load_processor, load_tokenizer, supported
from prunelab.models.processor_validation import try_processor

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks.base import Progress


@dataclass(frozen=True)
class Outcome:
    """A benchmark's measurements and sample records."""

    measurements: list[Measurement]
    samples: Sequence[object]


BenchmarkTask = tuple[Benchmark, EvaluationSettings]
"""A benchmark and its settings."""


def benchmark_tasks(
    names: Iterable[str], settings: EvaluationSettings, shots: Sequence[int] = ()
) -> list[BenchmarkTask]:
    """Every benchmark, once per number of shots if it takes shots.

    Raises:
        UnknownName: there is no such benchmark.
    """
    runs: list[BenchmarkTask] = []
    for benchmark in map(find_benchmark, names):
        counts: list[int | None] = list(dict.fromkeys(shots)) if benchmark.shots is not None else []
        runs += [(benchmark, replace(settings, shots=count)) for count in counts or [None]]
    return runs


def check_all(runs: Iterable[BenchmarkTask], model: LanguageModel | None = None) -> None:
    """Check all requirements before any computation; raises the first error.

    Args:
        runs: the benchmarks to run.
        model: the model if it is loaded; its requirements are checked as well.
    """
    for benchmark, settings in runs:
        if model is None:
            benchmark.check(settings)
        else:
            benchmark.check_model(model, settings)


def check_modality(runs: Iterable[BenchmarkTask], model: str | LanguageModel) -> None:
    """Check that benchmarks with images get a vision-language model.

    Args:
        runs: the benchmarks to run.
        model: the model, or its checkpoint, whose config is read if a benchmark shows images.

    Raises:
        InvalidRequest: the model is a language model; the message names the benchmarks and the families to use.
    """
    seeing = list(dict.fromkeys(benchmark.name for benchmark, _ in runs if benchmark.is_multimodal))
    if not seeing:
        return
    if isinstance(model, str):
        name, family = model, find_family(load_config(model), model)
    else:
        name, family = model.name, model.decoder.family
    if not family.is_multimodal:
        known = ", ".join(family_.name for family_ in families.values() if family_.is_multimodal)
        needs = f"{', '.join(seeing)} {'needs' if len(seeing) == 1 else 'need'} images"
        raise InvalidRequest(
            f"{name} is a {family.name}, a language model, and {needs}: give a vision-language model ({known}), or "
            "other benchmarks"
        )


def check_without_weights(runs: Sequence[BenchmarkTask], model: str) -> None:
    """Check a checkpoint's tokenizer, and its processor for images, before its weights are loaded.

    Raises:
        PrunelabError: the checkpoint lacks something that a benchmark needs.
    """
    called, name, config, family = supported(model)
    tokenizer = load_tokenizer(name, config)
    for benchmark, settings in runs:
        benchmark.check_tokenizer(called, tokenizer, settings)
    if family.is_multimodal and any(benchmark.is_multimodal for benchmark, _ in runs):
        processor = load_processor(name, config)
        if processor is not None:
            try_processor(called, processor, config)


def checked_model(
    runs: Sequence[BenchmarkTask], model: str | LanguageModel, load: Callable[[str], LanguageModel]
) -> LanguageModel:
    """The loaded model after all checks; checks that need no weights run before the weights are loaded.

    Args:
        runs: the benchmarks to run.
        model: the model, or its checkpoint.
        load: loads a checkpoint.

    Raises:
        PrunelabError: the first failed check, with its remedy.
    """
    check_modality(runs, model)
    check_all(runs)
    if isinstance(model, str):
        check_without_weights(runs, model)
    loaded = load(model) if isinstance(model, str) else model
    check_all(runs, loaded)
    return loaded


def evaluate(
    model: LanguageModel,
    cell: CellId,
    benchmark: Benchmark,
    settings: EvaluationSettings,
    progress: Progress | None = None,
) -> Outcome:
    """Run one benchmark."""
    start = time.perf_counter()
    evaluation = benchmark.evaluate(model, settings, progress)
    seconds = time.perf_counter() - start
    if model.shared is not None:
        seconds += model.shared.attributed_seconds(model.model)
    details: dict[str, Scalar] = {"limit": settings.limit, "hardware": hardware(model.device), **versions()}
    if model.inspection is not None and model.inspection.corrections:
        details["checkpoint"] = "; ".join(model.inspection.corrections)
    return Outcome(measurements_of(cell, benchmark, evaluation, seconds, details), evaluation.samples)


def hardware(device: torch.device) -> str:
    """Description of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def dense_cell(model: LanguageModel) -> CellId:
    """The identity of a dense model."""
    return CellId(model=model.name, fingerprint=model.fingerprint, dtype=model.dtype)
