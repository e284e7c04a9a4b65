"""WinoGrande (Sakaguchi et al. 2020): which of two a sentence is about."""

from __future__ import annotations

from typing import ClassVar

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric


@register
class WinoGrande(LmEvalBenchmark):
    """Sentences with a blank and two candidates for it, on the validation split.

    Partial scoring (Trinh and Le 2018): the likelihood of what follows the blank, with either candidate filled in.
    """

    name = "winogrande"
    title: ClassVar[str] = "WinoGrande: which of two nouns fits the blank in a sentence"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "winogrande/default.yaml"
    columns: ClassVar[tuple[str, ...]] = ("sentence", "option1", "option2", "answer")
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"),)
