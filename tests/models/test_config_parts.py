"""A part of a vision-language model's config whose type is no name is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prunelab.errors import CheckpointError
from prunelab.models.loading import load_model


@pytest.mark.parametrize("kind", [{}, [], {"a": 1}, 3, True, ["llama"]])
@pytest.mark.parametrize("part", ["vision_config", "text_config"])
def test_a_type_that_is_no_name(
    part: str, kind: object, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("smolvlm"), place)
    fields = json.loads((place / "config.json").read_text())
    fields[part]["model_type"] = kind
    (place / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=f"{part}.model_type is") as error:
        load_model(str(place), device="cpu")
    assert "\n" not in str(error.value)
