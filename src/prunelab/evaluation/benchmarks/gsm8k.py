"""GSM8K (Cobbe et al. 2021): arithmetic in words, reasoned out."""

from __future__ import annotations

from typing import ClassVar

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric


@register
class Gsm8k(LmEvalBenchmark):
    """School problems whose solutions end in `#### ANSWER`, greedy, on the test split, shots drawn from train.

    `exact_match` reads the number behind `####` (lm-eval's filter `strict-match`), and so judges the form as well;
    `exact_match,flexible-extract` reads the last number, whatever stands around it.
    """

    name = "gsm8k"
    title: ClassVar[str] = "GSM8K: grade-school word problems with written-out reasoning"
    primary: ClassVar[str] = "exact_match"
    shots: ClassVar[int | None] = 5
    definition: ClassVar[str] = "gsm8k/gsm8k.yaml"
    columns: ClassVar[tuple[str, ...]] = ("question", "answer")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("exact_match", "exact_match,strict-match"),
        Metric("exact_match,flexible-extract", "exact_match,flexible-extract"),
    )
