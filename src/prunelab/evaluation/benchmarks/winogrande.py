"""WinoGrande (Sakaguchi et al. 2020): pronoun resolution with two candidates."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import field_validator

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row, Words


class WinoGrandeRow(Row):
    """A sentence with a blank, written as an underscore, and two candidates for it."""

    sentence: Words
    option1: Words
    option2: Words
    answer: Literal["1", "2"]

    @field_validator("sentence")
    @classmethod
    def _has_a_blank(cls, sentence: str) -> str:
        if sentence.count("_") != 1:
            raise ValueError("a sentence with one blank, written _, is needed")
        return sentence


@register
class WinoGrande(LmEvalBenchmark):
    """Sentences with a blank and two candidates for it, on the validation split.

    Partial scoring (Trinh and Le 2018): the likelihood of the text after the blank, given each candidate.
    """

    name = "winogrande"
    title: ClassVar[str] = "WinoGrande: which of two nouns fits the blank in a sentence"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "winogrande/default.yaml"
    row: ClassVar[type[Row]] = WinoGrandeRow
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"),)
