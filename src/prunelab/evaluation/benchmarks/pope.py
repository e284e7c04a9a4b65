"""POPE (Li et al. 2023): does the model see objects that are not there."""

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
    """A question as the hub has it."""

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
    """ "Is there a X in the image?", half of the answers yes; what is absent was chosen in three ways.

    Figures by the official rule of `prunelab.evaluation.metrics.pope`, pooled and for each way of choosing (`random`,
    `popular`, `adversarial`): accuracy, precision, recall, F1 and the share of yes. Beside them, ours: the share of
    answers that say neither yes nor no, which the rule takes for yes, and the accuracy in which they are wrong.

    The data are `lmms-lab/POPE`, or, as `pope:QUESTIONS:IMAGES`, the official question files
    (`coco_pope_random.json`, ...) in one folder and COCO's images in another. With a limit, so many of each way.
    """

    name = "pope"
    title: ClassVar[str] = "POPE: whether an object is in the image (object hallucination)"
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5

    def __init__(self, questions: Path | None = None, images: Path | None = None) -> None:
        self._files, self._images = questions, images

    @classmethod
    def from_argument(cls, argument: str) -> Pope:
        """`pope:QUESTIONS:IMAGES`; the images are in the folder of the questions where only one folder is given."""
        questions, _, images = argument.partition(":")
        return cls(Path(questions), Path(images or questions))

    def check(self, settings: EvaluationSettings) -> None:
        """Of files the questions must be right, and at least one of their images must be there."""
        items = self.questions(settings)
        if self._files is None:
            return
        folder = self._images or self._files
        if all(item.picture.size() is None for item in items):
            raise DataError(
                f"{folder} holds none of the images that the questions in {self._files} are about, such as "
                f"{items[0].picture.name}: give pope:{self._files}:IMAGES with the folder that does"
            )

    def sources(self) -> Sequence[Source]:
        """The hub's copy, unless there are files."""
        return [] if self._files else [SOURCE]

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """The data, the limit and the batch."""
        if self._files is None:
            data = images_hash(undecoded(SOURCE, "test", settings, PopeRow))
        else:
            rows = [[item.id, item.question, item.label, item.picture.size()] for item in self.questions(settings)]
            data = content_hash({"questions": rows, "images": str(self._images)})
        return {"data": data, "limit": settings.limit, "tokens_a_batch": settings.tokens_a_batch}

    def questions(self, settings: EvaluationSettings) -> Sequence[Item]:
        """Every question, or so many of each category."""
        everything = list(self._hub_items(settings) if self._files is None else self._file_items(self._files))
        if settings.limit is None:
            return everything
        return [
            item
            for category in CATEGORIES
            for item in [one for one in everything if one.category == category][: settings.limit]
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
        """With the wording that asks for a word."""
        return PictureQuestion(item.id, f"{item.question}\n{BRIEFLY}", (item.picture,))

    def record(self, item: Item, answer: str, settings: EvaluationSettings) -> dict[str, Any]:
        """What was said, and what it means."""
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
        """Pooled, then by category."""
        found = _figures(records, "")
        for category, own in grouped(records, "category"):
            found += _figures(own, category)
        return found


def _official_rows(folder: Path, category: str) -> Iterator[OfficialRow]:
    """The rows of an official question file, whichever images it is about."""
    paths = sorted(folder.glob(f"*pope_{category}.json"))
    if not paths:
        raise DataError(
            f"{folder} has no file like coco_pope_{category}.json: give the folder of POPE's official question files"
        )
    seen: dict[tuple[Any, ...], str] = {}
    for row in read_rows(paths[0]):
        yield checked_row(OfficialRow, row.value, row.where, _OFFICIAL_REMEDY)
        refuse_repeated(OfficialRow, row.value, row.where, _OFFICIAL_REMEDY, seen, row.where)
    if not seen:
        raise DataError(f"{paths[0]} is empty: fetch the official file again")


def _figures(records: Sequence[Mapping[str, Any]], group: str) -> list[Score]:
    found = score([one["prediction"] for one in records], [one["target"] for one in records])
    n = len(records)

    def error(share: float) -> float:
        return float((share * (1 - share) / (n - 1)) ** 0.5) if n > 1 else 0.0

    strict = sum(one["strictly_correct"] for one in records) / n
    unclear = sum(not one["parseable"] for one in records) / n
    return [
        Score("acc", found.accuracy, n, error(found.accuracy), group),
        Score("f1", found.f1, n, None, group),
        Score("precision", found.precision, n, None, group),
        Score("recall", found.recall, n, None, group),
        Score("yes_share", found.yes_share, n, error(found.yes_share), group),
        Score("unparseable", unclear, n, error(unclear), group),
        Score("strict_acc", strict, n, error(strict), group),
    ]
