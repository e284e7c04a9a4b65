"""Benchmarks, one file each. A new one is a new file here with one registered class."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Score
from prunelab.io.registry import Registry

benchmarks: Registry[Benchmark] = Registry("benchmark")


def register(benchmark: type[Benchmark]) -> type[Benchmark]:
    """Class decorator: make a benchmark known under its name."""
    benchmarks.add(benchmark.name, benchmark())
    return benchmark


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")

from prunelab.evaluation.benchmarks.pope import Pope  # noqa: E402  (after the siblings it is one of)
from prunelab.evaluation.benchmarks.text import TextPerplexity  # noqa: E402


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by name; `text:FILE` measures the perplexity of any text.

    `pope:QUESTIONS:IMAGES` is POPE from the official question files and a folder of images.

    Raises:
        UnknownName: with the nearest name.
    """
    if name.startswith("text:"):
        return TextPerplexity(name.removeprefix("text:"))
    if name.startswith("pope:"):
        questions, _, images = name.removeprefix("pope:").partition(":")
        return Pope(Path(questions), Path(images or questions))
    return benchmarks[name]


__all__ = [
    "Benchmark",
    "Evaluation",
    "EvaluationSettings",
    "Score",
    "benchmarks",
    "find_benchmark",
    "register",
]
