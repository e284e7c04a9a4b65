"""ARC-Easy (Clark et al. 2018): grade-school science questions."""

from __future__ import annotations

from typing import ClassVar

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric


@register
class ArcEasy(LmEvalBenchmark):
    """Questions that word overlap or retrieval answers, on the test split.

    `acc` takes the likeliest choice, `acc_norm` the one of highest log-likelihood a character. Most questions have four
    choices, some three or five: chance is the mean of one over their number.
    """

    name = "arc_easy"
    title: ClassVar[str] = "ARC-Easy: grade-school science questions, the easy set"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.25016133557800224
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "arc/arc_easy.yaml"
    columns: ClassVar[tuple[str, ...]] = ("question", "choices", "answerKey")
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"), Metric("acc_norm", "acc_norm,none"))
