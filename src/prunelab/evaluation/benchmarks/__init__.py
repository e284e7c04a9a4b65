"""Benchmarks, one file each. A new benchmark is a new file here with one registered class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Score
from prunelab.io.registry import Registry, discover

B = TypeVar("B", bound=Benchmark)

benchmarks: Registry[Benchmark] = Registry("benchmark")
_with_argument: dict[str, Callable[[str], Benchmark]] = {}


def register(benchmark: type[Benchmark]) -> type[Benchmark]:
    """Class decorator: register a benchmark under its name."""
    benchmarks.add(benchmark.name, benchmark())
    return benchmark


def register_with_argument(prefix: str) -> Callable[[type[B]], type[B]]:
    """Class decorator: `PREFIX:ARGUMENT` names the benchmark that `from_argument` returns."""

    def register_class(benchmark: type[B]) -> type[B]:
        _with_argument[prefix] = benchmark.from_argument
        return benchmark

    return register_class


discover(__name__, __path__, without=("base", "multiple_choice"))


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by name; `text:FILE` is the perplexity of a text file.

    `pope:QUESTIONS:IMAGES` is POPE from the official question files and a folder of images.

    Raises:
        UnknownName: there is no such benchmark; the message suggests the nearest name.
    """
    prefix, colon, argument = name.partition(":")
    if colon and prefix in _with_argument:
        return _with_argument[prefix](argument)
    return benchmarks[name]


__all__ = [
    "Benchmark",
    "Evaluation",
    "EvaluationSettings",
    "Score",
    "benchmarks",
    "find_benchmark",
    "register",
    "register_with_argument",
]
