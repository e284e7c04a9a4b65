"""The pocket study: the default of `prunelab study`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.evaluation.benchmarks import EvaluationSettings, find_benchmark
from prunelab.evaluation.benchmarks.suites import suites
from prunelab.models.bundled import CONTEXT, VISION_LANGUAGE_MODELS
from prunelab.pocket.data import pocket_data

CALIBRATION_ROW = 512
"""Tokens per calibration sample; the miniature WikiText suffices for the default number of samples."""


def pocket_study(models: Sequence[str], named: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Depth, width and hybrid pruning at 10, 20 and 30 %, on all miniature benchmarks and speed.

    A vision-language model is evaluated on the vision benchmarks. Generated programs run in the sandbox. A benchmark
    that cannot run on this machine (no sandbox, a missing package) is left out.

    Args:
        models: pocket models.
        named: the benchmarks that the user names, all miniatures if empty. Named benchmarks are not checked here: the
            study itself refuses what cannot run.

    Returns:
        The fields of a study's configuration, and one line for each benchmark that is left out.
    """
    vision_models = [name for name in models if name in VISION_LANGUAGE_MODELS]
    if vision_models and len(vision_models) < len(models):
        raise InvalidRequest(
            f"{vision_models[0]} is evaluated on images and the other models are not: study it separately"
        )
    suite = suites["vision" if vision_models else "paper"]
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
        "calibration": {"corpus": "textvqa" if vision_models else "wikitext2", "sequence_length": CALIBRATION_ROW},
        "allow_code_execution": "humaneval" in (*named, *benchmarks),
        "window": CONTEXT,
        "out": f"runs/{'-'.join(models)}",
    }
    return fields, left_out
