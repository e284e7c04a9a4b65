"""Further readers of inputs from outside: cards, merges, tokenizers, processors, images and the environment."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import fuzz_mutations as mutations
from fuzz_commands import run_command
from fuzz_materials import Materials
from PIL import Image
from seeing import stripes

from prunelab.calibration.image_text import draw_pairs, is_pairs
from prunelab.io.fingerprint import content_hash
from prunelab.models.loading import load_model
from prunelab.studies.hub_upload import prepare_upload
from prunelab.studies.merge import merge_runs
from prunelab.studies.run import load_run

Read = Callable[[], object]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "config.json")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")


def _worsen(path: Path, chance: random.Random) -> None:
    """Make a file of JSON worse, as a value or as bytes."""
    given = path.read_bytes()
    if chance.random() < 0.8:
        path.write_text(mutations.as_json(mutations.worse_value(json.loads(given), chance), chance))
    else:
        path.write_bytes(mutations.worse_bytes(given, chance))


def card(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A pruned checkpoint whose card, plan or configuration is worse, put together for the hub."""
    place = materials.copied(materials.pruned, folder)
    name = chance.choice(("README.md", "README.md", "pruning_plan.json", "config.json"))
    path = place / name
    if name != "README.md":
        _worsen(path, chance)
    elif chance.random() < 0.6:
        path.write_text(mutations.worse_text(path.read_text(), chance), encoding="utf-8", errors="replace")
    else:
        path.write_bytes(mutations.worse_bytes(path.read_bytes(), chance))
    nobody = SimpleNamespace(model_info=mock.Mock(side_effect=OSError("no hub")))
    return lambda: prepare_upload(place, "me/mine", base="org/base", api=nobody)


def merged(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """Two runs in one folder, one of them with a file that is worse."""
    place = materials.copied(materials.run, folder)
    names = [path for path in sorted(place.rglob("*")) if path.is_file() and "report" not in path.parts]
    path = chance.choice(names)
    if path.suffix != ".json":
        path.write_bytes(mutations.worse_bytes(path.read_bytes(), chance))
    else:
        _worsen(path, chance)
        with_hash = chance.random() < 0.5
        try:
            fields = json.loads(path.read_text())
        except ValueError:
            fields = None
        if with_hash and isinstance(fields, dict) and "hash" in fields:
            fields["hash"] = content_hash({name: value for name, value in fields.items() if name != "hash"})
            path.write_text(json.dumps(fields))
    return lambda: merge_runs(load_run(place), load_run(materials.run), folder / "out")


def tokenizer(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A checkpoint whose tokenizer's files are worse, loaded and used."""
    place = materials.copied(materials.checkpoint, folder)
    _worsen(place / chance.choice([name for name in TOKENIZER_FILES if (place / name).exists()]), chance)

    def read() -> object:
        model = load_model(str(place), device="cpu")
        return model.tokenizer("the red fox")["input_ids"]

    return read


def processor(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A vision-language model whose processor's files are worse."""
    place = materials.copied(materials.seeing, folder)
    _worsen(place / chance.choice([name for name in PROCESSOR_FILES if (place / name).exists()]), chance)
    return lambda: load_model(str(place), device="cpu")


def images(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """Images with text to calibrate on: a row, or an image's file, is worse."""
    rows: list[Any] = []
    for number in range(4):
        kind = FORMATS[0] if number else chance.choice(FORMATS)
        kept = io.BytesIO()
        stripes(20 + number, 16, chance.choice(("RGB", "RGB", "L"))).save(kept, kind)
        (folder / f"{number}.{kind.lower()}").write_bytes(kept.getvalue())
        rows.append({"image": f"{number}.{kind.lower()}", "question": f"what is {number}?", "answer": "stripes"})
    if chance.random() < 0.5:
        rows[1] = mutations.worse_value(rows[1], chance)
    else:
        path = folder / rows[0]["image"]
        path.write_bytes(mutations.worse_bytes(path.read_bytes(), chance))
    corpus = folder / "pairs.jsonl"
    corpus.write_text("".join(mutations.as_json(row, chance) + "\n" for row in rows))

    def read() -> object:
        is_pairs(str(corpus))
        with mock.patch.object(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS):
            drawn = draw_pairs(str(corpus), materials.processor, samples=2, sequence_length=400, held_out=1)
        if drawn.pairs is None:
            raise AssertionError("no pairs")
        return drawn.pairs.of(0, 2)

    return read


def environment(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A cache folder that cannot be one, named by the environment."""
    values = [value for value in mutations.NASTY if isinstance(value, str) and "\x00" not in value]
    value = str(chance.choice([*values, "a/b", "mine/statistics", "\udcff"]))
    value = value if value.startswith("/") or not value else f"{folder / 'out'}/{value}"
    value = mutations.worse_text(value, chance).replace("\x00", "") if chance.random() < 0.2 else value
    words = ["prune", str(materials.checkpoint), "--calibration", str(materials.text), "--samples", "2"]
    words += ["--sequence-length", "16", "--out", str(folder / "out-checkpoint")]
    value = value.replace("../", "")  # what it names is an output, and only those below `out` are expected
    os_value = value.encode("utf-8", "surrogateescape" if value.isascii() else "replace").decode("utf-8", "replace")

    def read() -> object:
        given = {"PRUNELAB_CACHE": os_value, "XDG_CACHE_HOME": str(folder / "out-cache")}
        with mock.patch.dict(os.environ, given):
            return run_command(words)

    return read


MORE_TARGETS = {
    "cards": (card, 25), "merges": (merged, 15), "tokenizers": (tokenizer, 30), "processors": (processor, 15),
    "images": (images, 25), "environment": (environment, 3),
}  # fmt: skip
"""Each kind, and how many inputs it gets beside the 500 of the others."""
