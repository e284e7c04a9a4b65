"""ARC-Challenge (Clark et al. 2018): science questions that retrieval answers incorrectly."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.arc_easy import ArcRow
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric

if TYPE_CHECKING:
    from prunelab.io.data_rows import Row


@register
class ArcChallenge(LmEvalBenchmark):
    """Questions that neither word overlap nor retrieval answers, on the test split.

    `acc` takes the likeliest choice, `acc_norm` the choice with the highest log-likelihood per character. Most
    questions
    have four choices, some three or five: chance is the mean of the reciprocal number of choices.
    """

    name = "arc_challenge"
    title: ClassVar[str] = "ARC-Challenge: grade-school science questions, the hard set"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.2501564277588168
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "arc/arc_challenge.yaml"
    row: ClassVar[type[Row]] = ArcRow
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"), Metric("acc_norm", "acc_norm,none"))
