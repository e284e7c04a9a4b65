"""A tokenizer whose library panics at a text is refused when it is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import byte_tokenizer

from prunelab.errors import CheckpointError
from prunelab.models.loading import load_model
from prunelab.models.tokenizer_validation import check_tokenizer

TEMPLATES: tuple[dict[str, Any], ...] = (
    {"single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
    {"single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "", "type_id": 0}}]},
    {"single": [{"SpecialToken": {"id": "</s>", "type_id": 1}}]},
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_special_token_that_the_template_does_not_define(
    template: dict[str, Any], tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("llama"), place)
    fields = json.loads((place / "tokenizer.json").read_text())
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    fields["post_processor"] = {"type": "TemplateProcessing", "pair": pair, "special_tokens": {}, **template}
    (place / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="tokenizer") as error:
        load_model(str(place), device="cpu")
    assert "\n" not in str(error.value)


def test_an_interrupt_is_no_fault_of_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    tokenizer = byte_tokenizer()
    monkeypatch.setattr(tokenizer, "get_vocab", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_tokenizer("m", tokenizer, None)
