"""TextVQA (Singh et al. 2019): reading text in images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.calibration.image_text import TEXTVQA, TextVqaTrainRow
from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import EvaluationSettings, Score, resampled
from prunelab.evaluation.benchmarks.vision import VisionBenchmark, average, images_hash, undecoded
from prunelab.evaluation.metrics.textvqa import score
from prunelab.inference.vision_answers import PictureQuestion
from prunelab.models.vision.images import Picture, column_picture
from prunelab.models.vision.prompts import BRIEFLY
from prunelab.stats.paired_tests import Comparison, mean

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.io.datasets import Source


class TextVqaRow(TextVqaTrainRow):
    """A question of the validation split, with its number."""

    unique: ClassVar[tuple[str, ...]] = ("question_id",)

    question_id: str | int


@dataclass(frozen=True)
class Item:
    """One question with the answers of ten people."""

    id: str
    question: str
    people: tuple[str, ...]
    picture: Picture


@register
class TextVqa(VisionBenchmark):
    """Questions about text in images, scored against ten people's answers.

    The official soft accuracy of `prunelab.evaluation.metrics.textvqa`, on the validation split of `lmms-lab/textvqa`
    (the test split's answers are not published). The model gets the image without OCR tokens.
    """

    name = "textvqa"
    title: ClassVar[str] = "TextVQA: reading text in images, scored against ten human answers"
    primary: ClassVar[str] = "vqa_acc"

    def sources(self) -> Sequence[Source]:
        """The hub's data set."""
        return [TEXTVQA]

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the data, the limit and the batch."""
        data = images_hash(undecoded(TEXTVQA, "validation", settings, TextVqaRow))
        return {"data": data, "limit": settings.limit, "tokens_a_batch": settings.tokens_a_batch}

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison:
        """Paired bootstrap over questions, whose scores are not binary."""
        return resampled(dense, pruned, ["score"], mean)

    def questions(self, settings: EvaluationSettings) -> Sequence[Item]:
        """Every question of the validation split."""
        rows = undecoded(TEXTVQA, "validation", settings, TextVqaRow)
        known = rows.select_columns(["question_id", "question", "answers"])
        return [
            Item(
                str(row["question_id"]),
                row["question"],
                tuple(row["answers"]),
                column_picture(f"question {row['question_id']}'s image", rows, index),
            )
            for index, row in enumerate(known)
        ]

    def question(self, item: Item) -> PictureQuestion:
        """The question and the instruction to answer briefly."""
        return PictureQuestion(item.id, f"{item.question.capitalize()}\n{BRIEFLY}", (item.picture,))

    def record(self, item: Item, answer: str, settings: EvaluationSettings) -> dict[str, Any]:
        """The answer, people's answers, and the score."""
        earned = score(answer, item.people)
        return {
            "sample": item.id,
            "prompt": item.question,
            "people": list(item.people),
            "text": answer,
            "target": Counter(item.people).most_common(1)[0][0],
            "score": earned,
            "correct": earned >= 0.5,
        }

    def scores(self, records: Sequence[Mapping[str, Any]]) -> list[Score]:
        """The mean over questions."""
        value, error = average([record["score"] for record in records])
        return [Score("vqa_acc", value, len(records), error)]

    def conditions(self) -> dict[str, Any]:
        """The split, and that the prompt contains no OCR tokens."""
        return {"split": "validation", "ocr_tokens": False}
