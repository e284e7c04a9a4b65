"""A folder of data sets with a few documents of every vision benchmark, in the schema of the hub's."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import yaml
from PIL import Image
from seeing import stripes

from prunelab.evaluation.benchmarks.mmmu import SOURCES


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def write_repository(folder: Path, configs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Rows with images as Parquet, named in a README as on the hub."""
    listed = []
    for config, splits in configs.items():
        parts = []
        for split, rows in splits.items():
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            images = {name: datasets.Image() for name in columns if name.startswith("image") and name[5:6] in ("", "_")}
            images.pop("image_source", None)
            data = datasets.Dataset.from_dict(columns)
            for name, feature in images.items():
                data = data.cast_column(name, feature)
            path = folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            data.to_parquet(path)
            parts.append({"split": split, "path": f"{config}/{split}.parquet"})
        listed.append({"config_name": config, "data_files": parts})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")


def pope_rows() -> list[dict[str, Any]]:
    """Two questions of each category; one image broken, one greyscale, one transparent."""
    odd: dict[int, bytes] = {
        1: b"no image at all",
        2: png(stripes(mode="L")),
        3: png(Image.new("RGBA", (20, 20), (255, 0, 0, 90))),
    }
    return [
        {
            "id": str(index),
            "question_id": str(index % 2 + 1),
            "question": f"Is there a thing {index} in the image?",
            "answer": ("yes", "no")[index % 2],
            "image_source": f"image {index}.png",
            "image": {"bytes": odd.get(index, png(stripes(20 + index))), "path": None},
            "category": ("random", "popular", "adversarial")[index // 2],
        }
        for index in range(6)
    ]


def mmmu_row(subject: str, index: int, lettered: bool = True) -> dict[str, Any]:
    picture = {"bytes": png(stripes(16 + index)), "path": None}
    return {
        "id": f"validation_{subject}_{index + 1}",
        "question": "What is in <image 1>, and what in <image 2>?" if index else "What is in <image 1>?",
        "options": "['red', 'it\\'s blue', \"<image 2>\"]" if lettered else "[]",
        "answer": "B" if lettered else "['12', 'twelve']",
        "question_type": "multiple-choice" if lettered else "open",
        "image_1": picture,
        "image_2": picture if index or lettered else None,
    }


def write_vision_hub(root: Path) -> Path:
    """The three repositories."""
    write_repository(root / "lmms-lab" / "POPE", {"default": {"test": pope_rows()}})
    reading = [
        {
            "question_id": index,
            "question": "what is WRITTEN here?",
            "image": {"bytes": png(stripes(20 + index)), "path": None},
            "answers": ["stop"] * 7 + ["a stop", "halt", "two"],
        }
        for index in range(4)
    ]
    write_repository(root / "lmms-lab" / "textvqa", {"default": {"train": reading, "validation": reading[:3]}})
    subjects = {
        subject: {"validation": [mmmu_row(subject, 0), mmmu_row(subject, 1, lettered=number > 0)]}
        for number, subject in enumerate(SOURCES)
    }
    write_repository(root / "MMMU" / "MMMU", subjects)
    return root
