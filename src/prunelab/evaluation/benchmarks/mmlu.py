"""MMLU (Hendrycks et al. 2021): questions from 57 subjects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from pydantic import Field

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.definition import Definition, tasks_folder
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row, Words


class MmluRow(Row):
    """A question with four choices; the answer is the index of one, from 0."""

    question: Words
    choices: list[Words] = Field(min_length=4, max_length=4)
    answer: int = Field(ge=0, le=3)


@register
class Mmlu(LmEvalBenchmark):
    """Four-way choice by letter on the test split, with the five examples of each subject's dev split as shots.

    The total and its four categories weight every question equally, as lm-eval's groups do. A limit applies per
    subject.
    Deviation: lm-eval's default is zero shots; the benchmark's authors and most publications use five.
    """

    name = "mmlu"
    title: ClassVar[str] = "MMLU: multiple-choice questions from 57 subjects"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.25
    shots: ClassVar[int | None] = 5
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "mmlu/default"
    row: ClassVar[type[Row]] = MmluRow
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"),)

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """The subjects, by `category/subject`."""
        definitions_: dict[str, Definition] = {}
        for path in sorted((tasks_folder() / self.definition).glob("mmlu_*.yaml")):
            definition = Definition(f"{self.definition}/{path.name}", self.row, f"--benchmark {self.name}")
            fields = definition.fields(resolve=False)
            category = fields["tag"].removeprefix("mmlu_").removesuffix("_tasks")
            definitions_[f"{category}/{fields['dataset_name']}"] = definition
        return definitions_
