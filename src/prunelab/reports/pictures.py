"""The pictures that questions are about, read again from the data and made small."""

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
"""Pixels of the longer side; small pictures are enlarged by whole numbers, dot by dot."""


def with_pictures(study: Study, benchmark: str, pairs: Sequence[AnswerComparison]) -> list[AnswerComparison]:
    """The samples with the first picture that each is about; as they are where the data are not at hand."""
    config = study.run.config
    try:
        # As the study names it: POPE from files is `pope:QUESTIONS:IMAGES`.
        known = next((one for one in map(find_benchmark, config.benchmarks) if one.name == benchmark), None)
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
    """A picture as a PNG inside a URI; empty where it cannot be shown."""
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
