"""POPE (Li et al. 2023): object hallucination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from prunelab.errors import DataError
from prunelab.evaluation.benchmarks import register, register_with_argument
from prunelab.evaluation.benchmarks.base import EvaluationSettings, Score
from prunelab.evaluation.benchmarks.vision import VisionBenchmark, grouped, images_hash, undecoded
from prunelab.evaluation.metrics.pope import CATEGORIES, is_parseable, official_meaning, plain_meaning, score
from prunelab.inference.vision_answers import PictureQuestion
from prunelab.io.data_rows import Row, Words, checked_row, refuse_repeated
from prunelab.io.datasets import Source
from prunelab.io.documents import read_rows
from prunelab.io.fingerprint import content_hash
from prunelab.models.vision.images import Picture, column_picture, file_picture
from prunelab.models.vision.prompts import BRIEFLY

SOURCE = Source("lmms-lab/POPE", "default", wanted_by="--benchmark pope")
_OFFICIAL_REMEDY = "fetch the official question files again"


class PopeRow(Row):
    """A question of the hub's data set."""

    images: ClassVar[tuple[str, ...]] = ("image",)
    unique: ClassVar[tuple[str, ...]] = ("category", "question_id")

    question_id: str | int
    question: Words
    answer: str
    image_source: str
    category: Literal["random", "popular", "adversarial"]

    @field_validator("answer")
    @classmethod
    def _says_yes_or_no(cls, answer: str) -> str:
        if answer.lower() not in ("yes", "no"):
            raise ValueError("yes or no is needed")
        return answer


class OfficialRow(Row):
    """A question of the official files."""

    unique: ClassVar[tuple[str, ...]] = ("question_id",)

    question_id: str | int
    image: Words
    text: Words
    label: Literal["yes", "no"]


@dataclass(frozen=True)
class Item:
    """One question."""

    id: str
    category: str
    question: str
    label: str
    picture: Picture


@register
@register_with_argument("pope:QUESTIONS:IMAGES")
class Pope(VisionBenchmark):
    """ "Is there a X in the image?"; half of the answers are yes, and absent objects are chosen in three ways.

    Metrics follow the official rule of `prunelab.evaluation.metrics.pope`, pooled and for each way of choosing absent
    objects (`random`, `popular`, `adversarial`): accuracy, precision, recall, F1 and the share of yes. Additional
    metrics are the share of answers that contain neither yes nor no, which the rule counts as yes, and the accuracy
    with these counted as wrong.

    The data are `lmms-lab/POPE`, or, as `pope:QUESTIONS:IMAGES`, the official question files
    (`coco_pope_random.json`, ...) in one folder and COCO's images in another. A limit applies per category.
    """

    name = "pope"
    title: ClassVar[str] = "POPE: whether an object is in the image (object hallucination)"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5

    def __init__(self, questions: Path | None = None, images: Path | None = None) -> None:
        self._files, self._images = questions, images

    @classmethod
    def from_argument(cls, argument: str) -> Pope:
        """`pope:QUESTIONS:IMAGES`; without IMAGES, the images are in the folder of the questions."""
        questions, _, images = argument.partition(":")
        return cls(Path(questions), Path(images or questions))

    def check(self, settings: EvaluationSettings) -> None:
        """Check the questions, and for local files that at least one of their images exists."""
        items = self.questions(settings)
        if self._files is None:
            return
        folder = self._images or self._files
        if all(item.picture.size() is None for item in items):
            raise DataError(
                f"{folder} contains none of the images of the questions in {self._files}, such as "
                f"{items[0].picture.name}: give pope:{self._files}:IMAGES with the folder of the images"
            )

    def sources(self) -> Sequence[Source]:
        """The hub's data set, unless local files are given."""
        return [] if self._files else [SOURCE]

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the data, the limit and the batch."""
        if self._files is None:
            data = images_hash(undecoded(SOURCE, "test", settings, PopeRow))
        else:
            rows = [[item.id, item.question, item.label, item.picture.size()] for item in self.questions(settings)]
            data = content_hash({"questions": rows, "images": str(self._images)})
        return {"data": data, "limit": settings.limit, "tokens_a_batch": settings.tokens_a_batch}

    def questions(self, settings: EvaluationSettings) -> Sequence[Item]:
        """All questions, or the first `limit` of each category."""
        everything = list(self._hub_items(settings) if self._files is None else self._file_items(self._files))
        if settings.limit is None:
            return everything
        return [
            item
            for category in CATEGORIES
            for item in [item_ for item_ in everything if item_.category == category][: settings.limit]
        ]

    def _hub_items(self, settings: EvaluationSettings) -> Iterator[Item]:
        rows = undecoded(SOURCE, "test", replace(settings, limit=None), PopeRow)
        known = rows.remove_columns([name for name in rows.column_names if name not in PopeRow.model_fields])
        for index, row in enumerate(known):
            label = row["answer"].lower()
            picture = column_picture(str(row["image_source"]), rows, index)
            yield Item(f"{row['category']}/{row['question_id']}", row["category"], row["question"], label, picture)

    def _file_items(self, folder: Path) -> Iterator[Item]:
        for category in CATEGORIES:
            for row in _official_rows(folder, category):
                picture = file_picture((self._images or folder) / row.image)
                yield Item(f"{category}/{row.question_id}", category, row.text, row.label, picture)

    def question(self, item: Item) -> PictureQuestion:
        """The question and the instruction to answer briefly."""
        return PictureQuestion(item.id, f"{item.question}\n{BRIEFLY}", (item.picture,))

    def record(self, item: Item, answer: str, settings: EvaluationSettings) -> dict[str, Any]:
        """The answer, its meaning, and whether it is correct."""
        meaning = official_meaning(answer)
        return {
            "sample": item.id,
            "category": item.category,
            "image": item.picture.name,
            "prompt": item.question,
            "target": item.label,
            "text": answer,
            "prediction": meaning,
            "correct": meaning == item.label,
            "strictly_correct": plain_meaning(answer) == item.label,
            "parseable": is_parseable(answer),
        }

    def scores(self, records: Sequence[Mapping[str, Any]]) -> list[Score]:
        """Metrics pooled, then by category."""
        scores_ = _figures(records, "")
        for category, of_category in grouped(records, "category"):
            scores_ += _figures(of_category, category)
        return scores_


def _official_rows(folder: Path, category: str) -> Iterator[OfficialRow]:
    """The rows of an official question file of a category."""
    paths = sorted(folder.glob(f"*pope_{category}.json"))
    if not paths:
        raise DataError(
            f"{folder} has no file like coco_pope_{category}.json: give the folder of POPE's official question files"
        )
    lines: dict[tuple[Any, ...], str] = {}
    for row in read_rows(paths[0]):
        yield checked_row(OfficialRow, row.value, row.where, _OFFICIAL_REMEDY)
        refuse_repeated(OfficialRow, row.value, row.where, _OFFICIAL_REMEDY, lines, row.where)
    if not lines:
        raise DataError(f"{paths[0]} has 0 questions: fetch the official file again")


def _figures(records: Sequence[Mapping[str, Any]], group: str) -> list[Score]:
    metrics = score([record["prediction"] for record in records], [record["target"] for record in records])
    n = len(records)

    def error(share: float) -> float:
        return float((share * (1 - share) / (n - 1)) ** 0.5) if n > 1 else 0.0

    strict = sum(record["strictly_correct"] for record in records) / n
    unclear = sum(not record["parseable"] for record in records) / n
    return [
        Score("acc", metrics.accuracy, n, error(metrics.accuracy), group),
        Score("f1", metrics.f1, n, None, group),
        Score("precision", metrics.precision, n, None, group),
        Score("recall", metrics.recall, n, None, group),
        Score("yes_share", metrics.yes_share, n, error(metrics.yes_share), group),
        Score("unparseable", unclear, n, error(unclear), group),
        Score("strict_acc", strict, n, error(strict), group),
    ]
