"""Benchmarks, one file each. A new benchmark is a new file here with one registered class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Score
from prunelab.io.registry import Registry, discover

B = TypeVar("B", bound=Benchmark)

benchmarks: Registry[Benchmark] = Registry("benchmark")
with_argument: dict[str, type[Benchmark]] = {}
"""Benchmarks that take an argument, by what is typed: `text:FILE`."""


def register(benchmark: type[Benchmark]) -> type[Benchmark]:
    """Class decorator: register a benchmark under its name."""
    benchmarks.add(benchmark.name, benchmark())
    return benchmark


def register_with_argument(form: str) -> Callable[[type[B]], type[B]]:
    """Class decorator: what is typed as `form`, such as `text:FILE`, is made by the class's `from_argument`."""

    def register_class(benchmark: type[B]) -> type[B]:
        with_argument[form] = benchmark
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
    for form, benchmark in with_argument.items():
        if colon and form.partition(":")[0] == prefix:
            return benchmark.from_argument(argument)
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
    "with_argument",
]
