"""The pocket study: what `prunelab study` runs when it is told nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.evaluation.benchmarks import EvaluationSettings, find_benchmark
from prunelab.evaluation.benchmarks.suites import suites
from prunelab.models.bundled import CONTEXT, VISION_LANGUAGE_MODELS
from prunelab.pocket.data import pocket_data

CALIBRATION_ROW = 512
"""Tokens; the miniature WikiText has enough for the default number of such rows."""


def pocket_study(models: Sequence[str], named: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Depth, width and both at 10, 20 and 30 %, every miniature, and speed; of a model that sees, those with pictures.

    The programs that the models write run in the cage. Where a benchmark cannot run on this machine (no cage, a package
    missing), the study goes on without it.

    Args:
        models: pocket models.
        named: the benchmarks that the user names; every miniature where there is none. What is named is not looked at
            here: the study itself refuses what cannot run.

    Returns:
        Fields of a study's configuration, and a line for each benchmark that is left out.
    """
    seeing = [name for name in models if name in VISION_LANGUAGE_MODELS]
    if seeing and len(seeing) < len(models):
        raise InvalidRequest(f"{seeing[0]} is asked about pictures and the others are not: study it apart")
    suite = suites["vision" if seeing else "paper"]
    settings = EvaluationSettings(allow_code_execution=True, datasets_root=pocket_data())
    benchmarks, left_out = [], []
    for name in () if named else suite.benchmarks:
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
        "benchmarks": list(named) or benchmarks,
        "calibration": {"corpus": "textvqa" if seeing else "wikitext2", "sequence_length": CALIBRATION_ROW},
        "allow_code_execution": "humaneval" in (*named, *benchmarks),
        "window": CONTEXT,
        "out": f"runs/{'-'.join(models)}",
    }
    return fields, left_out
