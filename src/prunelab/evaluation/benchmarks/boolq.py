"""BoolQ (Clark et al. 2019): yes or no, from a passage."""

from __future__ import annotations

from typing import ClassVar

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric


@register
class BoolQ(LmEvalBenchmark):
    """Questions that people asked a search engine, each with a passage that answers it, on the validation split.

    Chance is a fair coin's; always answering yes, as some collapsed models do, gives 0.62.
    """

    name = "boolq"
    title: ClassVar[str] = "BoolQ: yes/no questions about a passage"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "super_glue/boolq/default.yaml"
    columns: ClassVar[tuple[str, ...]] = ("passage", "question", "label")
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"),)
