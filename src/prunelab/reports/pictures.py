"""Thumbnails of the images that questions refer to, read from the dataset."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelab.errors import PrunelabError
from prunelab.evaluation.benchmarks import EvaluationSettings, find_benchmark
from prunelab.evaluation.benchmarks.vision import VisionBenchmark
from prunelab.io.lazy import Image
from prunelab.models.vision.images import Picture, UnusableImage, open_picture
from prunelab.pocket.data import data_root

if TYPE_CHECKING:
    from prunelab.reports.elements import AnswerComparison
    from prunelab.reports.grid import Study

SIDE = 288
"""Pixels of the longer side; smaller images are enlarged by an integer factor, without interpolation."""


def with_pictures(study: Study, benchmark: str, pairs: Sequence[AnswerComparison]) -> list[AnswerComparison]:
    """Add each sample's first image; samples stay unchanged if the dataset is not available."""
    config = study.run.config
    try:
        # Under the name in the study: POPE from files is `pope:QUESTIONS:IMAGES`.
        known = next(
            (comparison for comparison in map(find_benchmark, config.benchmarks) if comparison.name == benchmark), None
        )
        if not isinstance(known, VisionBenchmark) or not pairs:
            return list(pairs)
        root = data_root(config.datasets_root, [entry.path for entry in config.models])
        items = {item.id: item for item in known.questions(EvaluationSettings(datasets_root=root))}
    except PrunelabError:
        return list(pairs)
    return [replace(pair, picture=_shown(known, items.get(pair.sample.rpartition(", sample ")[2]))) for pair in pairs]


def _shown(benchmark: VisionBenchmark, item: object) -> str:
    pictures = () if item is None else benchmark.question(item).pictures
    return data_uri(pictures[0]) if pictures else ""


def data_uri(picture: Picture) -> str:
    """An image as a PNG data URI; empty if it cannot be shown."""
    try:
        image = open_picture(picture).image
    except UnusableImage:
        return ""
    times = SIDE // max(image.size)
    if times > 1:
        image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
