"""Processors with something missing or wrong: completed from the config, or refused before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import byte_tokenizer, tiny_model
from seeing import llava_processor, seeing_processor, stripes

from prunelab.errors import InvalidRequest
from prunelab.models.loading import load_config, load_processor
from prunelab.models.processor_validation import try_processor
from prunelab.models.vision.dialogue import model_inputs, prompt_text

MAKERS: dict[str, Callable[[Any], Any]] = {
    "llava": llava_processor, "idefics3": seeing_processor, "smolvlm": seeing_processor
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configs and processors of vision-language models, without weights."""
    made = {}
    for variant, make in MAKERS.items():
        made[variant] = tmp_path_factory.mktemp("processors") / variant
        tiny_model(variant).config.save_pretrained(made[variant])
        make(byte_tokenizer()).save_pretrained(made[variant])
        fields = json.loads((made[variant] / "config.json").read_text())
        (made[variant] / "config.json").write_text(json.dumps(fields))
    return made


def changed(folder: Path, to: Path, file: str, **fields: Any) -> Path:
    """A copy in which a JSON file has other fields; those that are None are gone."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    own = {**json.loads((to / file).read_text()), **fields}
    (to / file).write_text(json.dumps({key: value for key, value in own.items() if value is not None}))
    return to


def loaded(folder: Path) -> tuple[Any, Any]:
    config = load_config(str(folder))
    return load_processor(str(folder), config), config


@pytest.mark.parametrize("variant", MAKERS)
def test_a_whole_processor_is_left_as_it_is(variant: str, folders: dict[str, Path]) -> None:
    processor, config = loaded(folders[variant])
    plain = load_processor(str(folders[variant]))
    assert processor.tokenizer.pad_token_id == plain.tokenizer.pad_token_id
    try_processor("model", processor, config)


@pytest.mark.parametrize(
    ("file", "lost"),
    [
        ("processor_config.json", ("patch_size",)),
        ("processor_config.json", ("vision_feature_select_strategy",)),
        ("processor_config.json", ("num_additional_image_tokens",)),
        ("processor_config.json", ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")),
        ("tokenizer_config.json", ("pad_token",)),
    ],
)
def test_what_the_config_says_is_filled_in(
    file: str, lost: tuple[str, ...], folders: dict[str, Path], tmp_path: Path
) -> None:
    expected, _ = loaded(folders["llava"])
    processor, config = loaded(changed(folders["llava"], tmp_path / "m", file, **dict.fromkeys(lost)))
    try_processor("model", processor, config)
    texts, pictures = ["A", "A longer one"], [[stripes()], [stripes(40, 30)]]
    batches = [
        model_inputs(one, [prompt_text(one, text, 1) for text in texts], pictures, "left")
        for one in (processor, expected)
    ]
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(batches[0][name], batches[1][name]), name


@pytest.mark.parametrize(
    ("variant", "file", "fields"),
    [
        ("llava", "processor_config.json", {"num_additional_image_tokens": 5}),
        ("llava", "processor_config.json", {"patch_size": 8}),
        ("llava", "processor_config.json", {"vision_feature_select_strategy": "full"}),
        ("idefics3", "processor_config.json", {"image_seq_len": 9}),
        ("smolvlm", "processor_config.json", {"image_seq_len": 1}),
        ("llava", "processor_config.json", {"image_token": "<nothing>"}),
    ],
)
def test_what_contradicts_the_config_is_refused(
    variant: str, file: str, fields: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    processor, config = loaded(changed(folders[variant], tmp_path / "m", file, **fields))
    with pytest.raises(InvalidRequest, match=r"processor (yields|fails)|chat template") as caught:
        try_processor("model", processor, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content.nothing.at_all }}", "{% for m in messages", "{{ raise_exception('no') }}"]
)
def test_a_template_of_a_processor_is_tried(template: str, folders: dict[str, Path]) -> None:
    processor, config = loaded(folders["idefics3"])
    processor.chat_template = template
    with pytest.raises(InvalidRequest, match="chat template"):
        try_processor("model", processor, config)


def test_a_processor_that_fails_is_refused_in_one_line(folders: dict[str, Path]) -> None:
    for broken in ({"image_processor": None}, {"image_token": None}, {"tokenizer": None}):
        processor, config = loaded(folders["llava"])
        for name, value in broken.items():
            setattr(processor, name, value)
        with pytest.raises(InvalidRequest) as caught:
            try_processor("model", processor, config)
        assert "\n" not in str(caught.value)
