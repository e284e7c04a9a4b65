"""ARC-Easy (Clark et al. 2018): grade-school science questions."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row, Words


class ArcChoices(BaseModel):
    """The choices of a question, with their labels in the same order."""

    model_config = ConfigDict(strict=True)

    text: list[Words] = Field(min_length=2)
    label: list[str] = Field(min_length=2)

    @field_validator("label")
    @classmethod
    def _label_each_choice(cls, label: list[str], info: ValidationInfo) -> list[str]:
        count = len(info.data.get("text", label))
        if len(label) != count or len(set(label)) != count:
            raise ValueError(f"{count} distinct labels are needed, one per choice")
        return label


class ArcRow(Row):
    """A question of ARC."""

    question: Words
    choices: ArcChoices
    answer_key: str = Field(alias="answerKey")

    @field_validator("answer_key")
    @classmethod
    def _is_a_label(cls, key: str, info: ValidationInfo) -> str:
        choices = info.data.get("choices")
        if choices is not None and key not in choices.label:
            raise ValueError(f"one of the labels {', '.join(choices.label)} is needed")
        return key


@register
class ArcEasy(LmEvalBenchmark):
    """Questions that word overlap or retrieval answers, on the test split.

    `acc` takes the likeliest choice, `acc_norm` the choice with the highest log-likelihood per character. Most
    questions
    have four choices, some three or five: chance is the mean of the reciprocal number of choices.
    """

    name = "arc_easy"
    title: ClassVar[str] = "ARC-Easy: grade-school science questions, the easy set"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.25016133557800224
    shots: ClassVar[int | None] = 0
    scores_likelihoods: ClassVar[bool] = True
    definition: ClassVar[str] = "arc/arc_easy.yaml"
    row: ClassVar[type[Row]] = ArcRow
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", "acc,none"), Metric("acc_norm", "acc_norm,none"))
