"""Named sets of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunelab.io.registry import Registry


@dataclass(frozen=True)
class Suite:
    """A set of benchmarks.

    Attributes:
        name: name on the command line.
        title: one line for lists.
        benchmarks: names of the benchmarks, resolved when the suite runs.
        limit: default limit of documents per benchmark; None for all.
    """

    name: str
    title: str
    benchmarks: tuple[str, ...]
    limit: int | None = None


COMMONSENSE = ("arc_easy", "arc_challenge", "boolq", "winogrande")

suites: Registry[Suite] = Registry("suite")
for _suite in (
    Suite(
        "commonsense", "the four zero-shot multiple-choice benchmarks that pruning papers usually report", COMMONSENSE
    ),
    Suite(
        "paper",
        "all text benchmarks of Rethinking the Value of Training-Free Structured Pruning of LLMs",
        (*COMMONSENSE, "mmlu", "gsm8k", "wikitext2", "humaneval", "ifeval", "stereoset", "throughput"),
    ),
    Suite("vision", "the benchmarks for vision-language models", ("pope", "textvqa", "mmmu")),
    Suite(
        "quick",
        "a first look: 100 documents per benchmark (an accuracy's standard error is then at most 5 points)",
        ("arc_easy", "winogrande", "gsm8k", "wikitext2", "throughput"),
        limit=100,
    ),
):
    suites.add(_suite.name, _suite)


def expand(chosen: Sequence[str], benchmarks: Sequence[str]) -> tuple[list[str], int | None]:
    """The benchmarks of suites and single benchmarks, without duplicates, and the smallest limit of the suites.

    Raises:
        UnknownName: there is no such suite; the message suggests the nearest name.
    """
    chosen_suites = [suites[name] for name in chosen]
    names = [name for suite in chosen_suites for name in suite.benchmarks]
    limits = [suite.limit for suite in chosen_suites if suite.limit is not None]
    return list(dict.fromkeys([*names, *benchmarks])), min(limits, default=None)
