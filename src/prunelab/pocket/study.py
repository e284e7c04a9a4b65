"""The pocket study: what `prunelab study` runs when it is told nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunelab.benchmarks import EvaluationSettings, find_benchmark
from prunelab.benchmarks.suites import suites
from prunelab.errors import MissingRequirement
from prunelab.pocket.data import pocket_data
from prunelab.pocket.models import CONTEXT


def pocket_study(models: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Depth, width and both at 10, 20 and 30 %, every miniature, and speed.

    The programs that the models write run in the cage. Where a benchmark cannot run on this machine (no cage, a package
    missing), the study goes on without it.

    Args:
        models: pocket models.

    Returns:
        Fields of a study's configuration, and a line for each benchmark that is left out.
    """
    settings = EvaluationSettings(allow_code_execution=True, datasets_root=pocket_data())
    benchmarks, left_out = [], []
    for name in suites["paper"].benchmarks:
        try:
            find_benchmark(name).check(settings)
        except MissingRequirement as error:
            left_out.append(f"without {name}: {error}")
        else:
            benchmarks.append(name)
    fields = {
        "models": list(models),
        "methods": ["shortgpt", "flap", "hybrid"],
        "ratios": [0.1, 0.2, 0.3],
        "benchmarks": benchmarks,
        "calibration": {"sequence_length": CONTEXT},
        "allow_code_execution": "humaneval" in benchmarks,
        "window": CONTEXT,
        "out": f"runs/{'-'.join(models)}",
    }
    return fields, left_out
