"""BoolQ (Clark et al. 2019): yes/no questions about a passage."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row, Words


class BoolQRow(Row):
    """A question; the label is 0 for no, 1 for yes. Test splits without answers have -1, which cannot be scored."""

    passage: Words
    question: Words
    label: int = Field(ge=0, le=1)


@register
class BoolQ(LmEvalBenchmark):
    """Questions to a search engine, each with a passage that contains the answer, on the validation split.

    Chance is 0.5; always answering yes, as some collapsed models do, gives 0.62.
    """

    name = "boolq"
    title: ClassVar[str] = "BoolQ: yes/no questions about a passage"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "super_glue/boolq/default.yaml"
    row: ClassVar[type[Row]] = BoolQRow
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"),)
