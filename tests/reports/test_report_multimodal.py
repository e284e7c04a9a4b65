"""Table 3 beside the paper's."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from seeing import stripes

from prunelab.reports.elements import AnswerComparison, Prose, TableData
from prunelab.reports.grid import Study
from prunelab.reports.pictures import with_pictures
from prunelab.reports.sections import tables
from prunelab.studies.config import study_config
from prunelab.studies.run import Measured, Run
from prunelab.studies.store import Measurement


def measurement(model: str, method: str, ratio: float, benchmark: str, value: float) -> Measurement:
    fields: dict[str, Any] = {
        "model": model, "method": method, "ratio": ratio, "achieved_ratio": ratio, "seed": 0, "benchmark": benchmark,
        "metric": "vqa_acc" if benchmark == "textvqa" else "acc", "value": value, "standard_error": 0.02, "n": 200,
        "seconds": 1.0, "primary": True,
    }  # fmt: skip
    return Measurement.model_validate(fields)


def study(model: str, benchmark: str, tmp_path: Path) -> Study:
    cuts = (("dense", 0.0), ("shortgpt", 0.1), ("flap", 0.2), ("hybrid", 0.1))
    rows = [measurement(model, *cut, benchmark, 0.5) for cut in cuts]
    measured = [Measured(tmp_path / f"{index}.json", [row]) for index, row in enumerate(rows)]
    config = study_config({"models": [model], "benchmarks": [benchmark], "out": str(tmp_path)})
    return Study.of(Run(tmp_path, config, measured, [], []))


def test_the_papers_figures_stand_beside_cuts_of_the_same_kind(tmp_path: Path) -> None:
    section = tables.section(study("Idefics3-8B", "textvqa", tmp_path))
    assert section is not None
    (sheet,) = (part for part in section.parts if isinstance(part, TableData))
    assert sheet.columns == ("model", "cut", "achieved", "TextVQA, %", "paper: TextVQA, %")
    found = {row.cells[1].text: tuple(cell.text for cell in row.cells[3:]) for row in sheet.rows}
    assert found == {
        "dense": ("50.00 ± 2", "60.42"),
        "shortgpt 10%": ("50.00 ± 2", "54.66"),
        "flap 20%": ("50.00 ± 2", "37.20"),
        "hybrid 10%": ("50.00 ± 2", "–"),
    }


@pytest.mark.parametrize(
    ("model", "benchmark", "said"),
    [("Idefics3-8B", "pope", True), ("Idefics3-8B", "mmmu", False), ("small", "pope", False)],
)
def test_what_the_papers_figure_of_pope_may_be_is_said_beside_it(
    model: str, benchmark: str, said: bool, tmp_path: Path
) -> None:
    section = tables.section(study(model, benchmark, tmp_path))
    assert section is not None
    assert any("POPE is reported as accuracy" in part.text for part in section.parts if isinstance(part, Prose)) is said


def test_another_model_stands_alone(tmp_path: Path) -> None:
    section = tables.section(study("small", "textvqa", tmp_path))
    assert section is not None
    (sheet,) = section.parts
    assert isinstance(sheet, TableData)
    assert sheet.columns == ("model", "cut", "achieved", "TextVQA, %")


def test_a_language_models_report_has_no_such_table(tmp_path: Path) -> None:
    assert tables.section(study("small", "boolq", tmp_path)) is None


def test_pictures_of_questions_from_files_are_found(tmp_path: Path) -> None:
    """The study says `pope:FOLDER`, the results `pope`."""
    row = {"question_id": 1, "image": "x.png", "text": "Is there a dog in the image?", "label": "yes"}
    for category in ("random", "popular", "adversarial"):
        (tmp_path / f"coco_pope_{category}.json").write_text(json.dumps(row))
    stripes(20, 10).save(tmp_path / "x.png")
    config = study_config({"models": ["small"], "benchmarks": [f"pope:{tmp_path}"], "out": str(tmp_path)})
    found = Study.of(Run(tmp_path, config, [], [], []))
    pair = AnswerComparison("small, pope, sample popular/1", "small", "1 of 1", "", ())
    (shown,) = with_pictures(found, "pope", [pair])
    picture = Image.open(io.BytesIO(base64.b64decode(shown.picture.partition(",")[2])))
    assert picture.size == (280, 140)  # enlarged by a whole number
    assert with_pictures(found, "textvqa", [pair]) == [pair]
