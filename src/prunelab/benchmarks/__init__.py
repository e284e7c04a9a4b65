"""Benchmarks, one file each. A new one is a new file here with one registered class."""

from __future__ import annotations

import importlib
import pkgutil

from prunelab.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Score
from prunelab.registry import Registry

benchmarks: Registry[Benchmark] = Registry("benchmark")


def register(benchmark: type[Benchmark]) -> type[Benchmark]:
    """Class decorator: make a benchmark known under its name."""
    benchmarks.add(benchmark.name, benchmark())
    return benchmark


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")

from prunelab.benchmarks.text import TextPerplexity  # noqa: E402  (after the siblings it is one of)


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by name; `text:FILE` measures the perplexity of any text.

    Raises:
        UnknownName: with the nearest name.
    """
    if name.startswith("text:"):
        return TextPerplexity(name.removeprefix("text:"))
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
