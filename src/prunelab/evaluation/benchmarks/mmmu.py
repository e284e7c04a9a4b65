"""MMMU (Yue et al. 2024): college questions about images, 30 subjects in six disciplines."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ValidationInfo, field_validator

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import EvaluationSettings, Score
from prunelab.evaluation.benchmarks.vision import VisionBenchmark, average, grouped, images_hash, undecoded
from prunelab.evaluation.metrics.mmmu import is_right_openly, parse_letter
from prunelab.inference.vision_answers import PictureQuestion
from prunelab.io.data_rows import Row, Words
from prunelab.io.datasets import Source
from prunelab.io.fingerprint import content_hash
from prunelab.models.vision.images import Picture, column_picture
from prunelab.models.vision.prompts import BRIEFLY, LETTERED

DISCIPLINES: dict[str, tuple[str, ...]] = {
    "Art & Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health & Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities & Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech & Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
REPOSITORY = "MMMU/MMMU"
SOURCES = {
    subject: Source(REPOSITORY, subject, wanted_by="--benchmark mmmu")
    for subjects in DISCIPLINES.values()
    for subject in subjects
}
_IMAGE = re.compile(r"<image (\d)>")


class MmmuRow(Row):
    """A question; options are a Python list literal, and so may an open answer be."""

    images: ClassVar[tuple[str, ...]] = ("image_1",)
    unique: ClassVar[tuple[str, ...]] = ("id",)

    id: Words
    question_type: Literal["multiple-choice", "open"]
    question: Words
    options: str
    answer: Words

    @field_validator("options")
    @classmethod
    def _are_listed(cls, options: str, info: ValidationInfo) -> str:
        if info.data.get("question_type") == "multiple-choice" and not 2 <= len(_listed(options)) <= 26:
            raise ValueError("a Python list literal of 2 to 26 options is needed")
        return options

    @field_validator("answer")
    @classmethod
    def _is_a_letter(cls, answer: str, info: ValidationInfo) -> str:
        options = info.data.get("options")
        if info.data.get("question_type") != "multiple-choice" or options is None:
            return answer
        letters = [chr(ord("A") + index) for index in range(len(_listed(options)))]
        if answer not in letters:
            raise ValueError(f"one of the letters {', '.join(letters)} is needed")
        return answer


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique over all subjects.
        subject: one of 30.
        discipline: one of six.
        question: text of the question without image tags.
        options: texts of the options; empty for an open question.
        answer: the letter, or the accepted answers of an open question.
        pictures: images in the order in which the question mentions them.
    """

    id: str
    subject: str
    discipline: str
    question: str
    options: tuple[str, ...]
    answer: tuple[str, ...]
    pictures: tuple[Picture, ...]


@register
class Mmmu(VisionBenchmark):
    """College questions with images, most of them lettered, on the validation split (900 of 30 subjects).

    Scored by the official rule of `prunelab.evaluation.metrics.mmmu`; guesses are drawn per item, and `strict_acc`
    counts them as wrong. Metrics are reported for each discipline, and for each subject as `discipline/subject`.
    Zero-shot; all images precede the question, in the order in which it mentions them. A limit applies per subject.
    """

    name = "mmmu"
    title: ClassVar[str] = "MMMU: college questions about images, 30 subjects"
    version: ClassVar[int] = 3
    primary: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.25

    def sources(self) -> Sequence[Source]:
        """One configuration per subject."""
        return list(SOURCES.values())

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the data, the limit, the batch and the seed of guesses."""
        parts = [images_hash(undecoded(source, "validation", settings, MmmuRow)) for source in SOURCES.values()]
        return {
            "data": content_hash({"subjects": parts}),
            "limit": settings.limit,
            "tokens_a_batch": settings.tokens_a_batch,
            "seed": settings.seed,
        }

    def questions(self, settings: EvaluationSettings) -> Sequence[Item]:
        """All questions, by subject."""
        return [
            item
            for discipline, subjects in DISCIPLINES.items()
            for subject in subjects
            for item in _items(discipline, subject, settings)
        ]

    def question(self, item: Item) -> PictureQuestion:
        """The prompt: question, lettered options, and the instruction."""
        if not item.options:
            return PictureQuestion(item.id, f"{item.question}\n{BRIEFLY}", item.pictures)
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(_letters(item), item.options, strict=True))
        return PictureQuestion(item.id, f"{item.question}\n{options}\n{LETTERED}", item.pictures)

    def record(self, item: Item, answer: str, settings: EvaluationSettings) -> dict[str, Any]:
        """The answer, its parsed form, and whether it is correct."""
        if item.options:
            parsed = parse_letter(answer, item.options, item.id, settings.seed)
            prediction, guessed, correct = parsed.letter, parsed.guessed, parsed.letter == item.answer[0]
        else:
            prediction, guessed, correct = answer, False, is_right_openly(answer, item.answer)
        return {
            "sample": item.id,
            "discipline": item.discipline,
            "subject": item.subject,
            "prompt": item.question,
            "options": list(item.options),
            "target": ", ".join(item.answer),
            "text": answer,
            "prediction": prediction,
            "guessed": guessed,
            "correct": correct,
            "chance": 1 / len(item.options) if item.options else 0.0,
        }

    def scores(self, records: Sequence[Mapping[str, Any]]) -> list[Score]:
        """Metrics of all questions, of disciplines, and of subjects."""
        scores_ = _figures(records, "")
        for discipline, of_discipline in grouped(records, "discipline"):
            scores_ += _figures(of_discipline, discipline)
        for discipline, of_discipline in grouped(records, "discipline"):
            for subject, of_subject in grouped(of_discipline, "subject"):
                scores_ += _figures(of_subject, f"{discipline}/{subject}")
        return scores_

    def conditions(self) -> dict[str, Any]:
        """The split."""
        return {"split": "validation"}


def _figures(records: Sequence[Mapping[str, Any]], group: str) -> list[Score]:
    right = [float(record["correct"]) for record in records]
    strict = [float(record["correct"] and not record["guessed"]) for record in records]
    guessed = [float(record["guessed"]) for record in records]
    named = (("acc", right), ("strict_acc", strict), ("guessed", guessed))
    return [Score(metric, average(values)[0], len(values), average(values)[1], group) for metric, values in named]


def _letters(item: Item) -> list[str]:
    return [chr(ord("A") + index) for index in range(len(item.options))]


def _items(discipline: str, subject: str, settings: EvaluationSettings) -> Iterator[Item]:
    source = SOURCES[subject]
    rows = undecoded(source, "validation", settings, MmmuRow)
    images = [name for name in rows.column_names if name.startswith("image_")]
    for index, row in enumerate(rows.remove_columns(images)):
        options, answer = _listed(row["options"]), _listed(row["answer"]) or [row["answer"]]
        lettered = row["question_type"] == "multiple-choice"
        named = dict.fromkeys(_IMAGE.findall(" ".join([row["question"], *options]))) or {"1": None}
        yield Item(
            row["id"],
            subject,
            discipline,
            _IMAGE.sub("", row["question"]).strip(),
            tuple(_IMAGE.sub(r"image \1", option) for option in options) if lettered else (),
            tuple(answer),
            tuple(column_picture(f"{row['id']}'s image_{number}", rows, index, f"image_{number}") for number in named),
        )


def _listed(text: str) -> list[str]:
    """The items of a Python list literal; empty if the text is not one."""
    if not text.lstrip().startswith("["):
        return []
    try:
        return [str(item) for item in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return []
