"""The tokens of tokenizer.json are the model's, whatever class tokenizer_config.json names."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran
from tokenizers import Tokenizer

from prunelab.errors import CheckpointError
from prunelab.models.bundled import checkpoint_of
from prunelab.models.loading import inspected, load_tokenizer
from prunelab.models.tokenizer_file import PROBES, first_difference

OTHERS = ("CodeLlamaTokenizer", "GemmaTokenizer", "GPT2Tokenizer", "BertTokenizer")
OWN = ("TokenizersBackend", "PreTrainedTokenizerFast", "Qwen2Tokenizer", "LlamaTokenizerFast", "NoSuchTokenizer", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = checkpoint_of("pocket-llama")
    assert source is not None
    return Path(shutil.copytree(source, tmp_path / "m"))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def ids_of_file(folder: Path, text: str) -> list[int]:
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return ids


@pytest.mark.parametrize("kind", OTHERS)
def test_the_class_of_another_model_does_not_change_tokens(kind: str, folder: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class=kind)
    with pytest.warns(UserWarning, match=f"the tokenizer class {kind} reads .* as other tokens than tokenizer.json"):
        tokenizer = load_tokenizer(str(folder))
    for text in (*PROBES, "def f(x):\n    return x", "Ann has 12 apples."):
        assert tokenizer(text).input_ids == ids_of_file(folder, text)
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.chat_template


@pytest.mark.parametrize("kind", OWN)
def test_a_class_that_reads_the_file_is_kept_without_a_word(kind: str | None, folder: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tokenizer = load_tokenizer(str(folder))
    assert first_difference(tokenizer, Tokenizer.from_file(str(folder / "tokenizer.json"))) is None


@pytest.mark.parametrize("kind", ["TokenizersBackend", "Qwen2Tokenizer", "GPT2Tokenizer"])
def test_tokens_are_not_drawn_at_random(kind: str, folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    expected = ids_of_file(folder, "internationally relevant apples")
    change(folder / "tokenizer.json", model={**model, "dropout": 0.5})
    change(folder / "tokenizer_config.json", tokenizer_class=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tokenizer = load_tokenizer(str(folder))
    assert all(tokenizer("internationally relevant apples").input_ids == expected for _ in range(30))


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_byte_order_mark_is_named(name: str, folder: Path) -> None:
    (folder / name).write_text("\ufeff" + (folder / name).read_text(), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name} begins with a byte order mark"):
        inspected(str(folder))


@pytest.mark.parametrize("metadata", ["none", None, []])
def test_an_index_without_metadata_is_refused_by_every_reader(metadata: Any, folder: Path, command: Any) -> None:
    names = list(inspected(str(folder)).files.tensors)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors"), "metadata": metadata}
    if metadata == "none":
        del index["metadata"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    lines = set()
    for memory in ((), ("--memory", "2MB")):
        ran: Ran = command(
            "prune", folder, "--method", "random_depth", "--ratio", 0.1, "--out", folder / "cut", *memory
        )
        assert ran.code == 2
        lines.add(ran.err.strip().splitlines()[-1])
    assert len(lines) == 1
    assert 'add "metadata": {}' in lines.pop()
    change(folder / "model.safetensors.index.json", metadata={})
    assert len(inspected(str(folder)).files.tensors) == len(names)


def test_export_refuses_a_tokenizer_before_it_reads_weights(
    folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr("prunelab.models.loading.weights_of", read)
    steps = json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]
    other = [{"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "UnicodeScripts"}]
    for step in other:
        steps["pretokenizers"] = [step, *steps["pretokenizers"][-2:]]
        change(folder / "tokenizer.json", pre_tokenizer=steps)
        ran: Ran = command("export", folder, "--out", folder / "x.gguf")
        assert ran.code == 2
        assert step["type"] in ran.err
    ran = command("export", "pocket-idefics3", "--out", folder / "x.gguf")
    assert ran.code == 2
    assert "cannot be exported to GGUF" in ran.err
