"""The miniature vision benchmarks, in the layout of the hub repositories that hold POPE, TextVQA and MMMU."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prunelab.calibration.image_text import TEXTVQA
from prunelab.evaluation.benchmarks.mmmu import DISCIPLINES, REPOSITORY
from prunelab.evaluation.benchmarks.pope import SOURCE as POPE
from prunelab.pocket.vision.drawing import SIZE, draw
from prunelab.pocket.vision.questions import (
    ABSENT,
    Asked,
    Question,
    colour,
    count,
    existence,
    lettered,
    place,
    reading,
    shape,
)
from prunelab.pocket.vision.scene import Scene, make_scene

Rows = Sequence[Mapping[str, Any]]
PICTURES = 100
"""Number of images in POPE's miniature; each has six questions."""
READINGS = 200
A_SUBJECT = 10
IMAGES = tuple(f"image_{number}" for number in range(1, 8))
KINDS: dict[str, Question] = {
    "Art & Design": colour,
    "Business": reading,
    "Science": count,
    "Health & Medicine": place,
    "Humanities & Social Science": reading,
    "Tech & Engineering": shape,
}
"""The question type of each discipline."""


def picture_sets() -> dict[str, dict[str, dict[str, Rows]]]:
    """The rows of every repository, by configuration and split; images are scenes that are not drawn yet."""
    subjects = [(discipline, subject) for discipline, names in DISCIPLINES.items() for subject in names]
    return {
        POPE.repository: {"default": {"test": list(_pope())}},
        TEXTVQA.repository: {
            "default": {"train": list(_textvqa("train", False)), "validation": list(_textvqa("validation", True))}
        },
        REPOSITORY: {subject: {"validation": list(_mmmu(discipline, subject))} for discipline, subject in subjects},
    }


def _pope() -> Iterator[dict[str, Any]]:
    """A positive and a negative question for each category of absent objects, for every image."""
    rng = random.Random("pope")
    number = 0
    for picture in range(PICTURES):
        asked: list[tuple[str, Asked | None]] = [("", None)]
        while any(question is None for _, question in asked):
            scene = make_scene(rng, held_out=True)
            asked = [(absent, existence(rng, scene, absent, yes)) for absent in ABSENT for yes in (True, False)]
        for absent, question in asked:
            assert question is not None
            number += 1
            yield {
                "id": str(number),
                "question_id": str(number),
                "question": question.question,
                "answer": question.answer.lower(),
                "image_source": f"picture_{picture:03d}",
                "image": scene,
                "category": absent,
            }


def _textvqa(split: str, held_out: bool) -> Iterator[dict[str, Any]]:
    """The sign's text as ten annotators: most give the text, one in lower case, and one no answer."""
    rng = random.Random(f"textvqa {split}")
    for number in range(READINGS):
        scene = make_scene(rng, held_out, sign=True)
        asked = reading(rng, scene)
        assert asked is not None
        yield {
            "image_id": f"{split}_{number:03d}",
            "question_id": number,
            "question": asked.question.lower(),
            "image": scene,
            "image_width": SIZE,
            "image_height": SIZE,
            "answers": [asked.answer] * 8 + [asked.answer.lower(), "unanswerable"],
            "ocr_tokens": [asked.answer],
            "set_name": split,
        }


def _mmmu(discipline: str, subject: str) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"mmmu {subject}")
    number = 0
    while number < A_SUBJECT:
        scene = make_scene(rng, held_out=True)
        asked = lettered(rng, scene, KINDS[discipline])
        if asked is None:
            continue
        number += 1
        yield {
            "id": f"validation_{subject}_{number}",
            "question": f"<image 1>{asked.question}",
            "options": str(list(asked.options)),
            "answer": asked.letter,
            "question_type": "multiple-choice",
            "subfield": asked.kind,
            **dict.fromkeys(IMAGES),
            "image_1": scene,
        }


def write_pictures(root: Path) -> None:
    """Draw the images and write every repository to `root/<repository>`."""
    for repository, configs in picture_sets().items():
        listed = []
        for config, splits in configs.items():
            parts = []
            for split, rows in splits.items():
                name = f"{config}/{split}.parquet"
                _write_rows(root / repository / name, rows)
                parts.append({"split": split, "path": name})
            listed.append({"config_name": config, "data_files": parts})
        (root / repository / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n", "utf-8")


def _write_rows(path: Path, rows: Rows) -> None:
    import datasets
    import pyarrow.parquet

    columns = {name: [_stored(row[name]) for row in rows] for name in rows[0]}
    data = datasets.Dataset.from_dict(columns)
    for name in ("image", *IMAGES):
        if name in columns:
            data = data.cast_column(name, datasets.Image())
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not to_parquet(), which shows a progress bar per file; the schema marks the image columns.
    pyarrow.parquet.write_table(data.data.table.cast(data.features.arrow_schema), path)


def _stored(value: Any) -> Any:
    if not isinstance(value, Scene):
        return value
    out = io.BytesIO()
    draw(value).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}
