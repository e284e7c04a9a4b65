"""GSM8K (Cobbe et al. 2021): grade-school word problems."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import field_validator

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row, Words

_FINAL_ANSWER = re.compile(r"#### -?\d[\d.,]*\s*\Z")


class Gsm8kRow(Row):
    """A problem, and a solution that ends in its number."""

    question: Words
    answer: str

    @field_validator("answer")
    @classmethod
    def _ends_in_a_number(cls, answer: str) -> str:
        if _FINAL_ANSWER.search(answer) is None:
            raise ValueError("a solution that ends in `#### NUMBER` is needed")
        return answer


@register
class Gsm8k(LmEvalBenchmark):
    """School problems whose solutions end in `#### ANSWER`, greedy, on the test split, shots drawn from train.

    `exact_match` reads the number after `####` (lm-eval's filter `strict-match`) and so depends on the format as well;
    `exact_match,flexible-extract` reads the last number of the answer.
    """

    name = "gsm8k"
    title: ClassVar[str] = "GSM8K: grade-school word problems with written-out reasoning"
    primary: ClassVar[str] = "exact_match"
    shots: ClassVar[int | None] = 5
    definition: ClassVar[str] = "gsm8k/gsm8k.yaml"
    row: ClassVar[type[Row]] = Gsm8kRow
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("exact_match", "exact_match,strict-match"),
        Metric("exact_match,flexible-extract", "exact_match,flexible-extract"),
    )
