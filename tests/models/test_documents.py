"""A checkpoint's JSON files are read within limits before a library reads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prunelab.calibration import ActivationStatistics
from prunelab.errors import CheckpointError, DataError
from prunelab.models.documents import DOCUMENTS, check_documents
from prunelab.models.loading import load_config, load_model

CheckpointOf = Callable[[str], Path]
WRONG = [
    "", "null", "[]", "3", "{", "[" * 100_000, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}',
    '{"a": ' + "9" * 5000 + "}",
]  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_malformed_file_is_named(name: str, text: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "m")
    (tmp_path / "m" / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"^{tmp_path / 'm' / name}") as error:
        load_config(str(tmp_path / "m"))
    assert len(str(error.value).splitlines()) == 1


def test_bytes_and_pipes(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match="is not UTF-8"):
        load_model(str(tmp_path / "m"))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_model(str(tmp_path / "m"))
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(str(tmp_path / "m"))


def test_real_files_pass(tiny_checkpoint: CheckpointOf) -> None:
    for variant in ("llama", "gemma2", "idefics3"):
        check_documents(tiny_checkpoint(variant))
    folder = Path.home() / ".cache" / "prunelab-real-models"
    for config in folder.glob("*/config.json"):
        check_documents(config.parent)


def statistics_file(tiny: Callable[[str], Tiny], path: Path) -> Path:
    tiny("llama").statistics.save(path)
    return path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", "-1"),
        ("tokens", "9" * 5000),
        ("tokens", "x"),
        ("provenance", "null"),
        ("provenance", "{"),
        ("provenance", '{"key": 1, "key": 2}'),
        ("provenance", '{"calibration": "x"}'),
        ("provenance", "[" * 9999),
    ],
)
def test_statistics_with_odd_words(field: str, value: str, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    path = statistics_file(tiny, tmp_path / "s.safetensors")
    with safe_open(path, framework="pt") as file:
        words = dict(file.metadata())
    save_file(load_file(path), path, {**words, field: value})
    with pytest.raises(DataError) as error:
        ActivationStatistics.load(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["cosine_sum", "attention.0.mean", "mlp.1.deviations"])
@pytest.mark.parametrize("kind", ["scalar", "matrix", "float32", "longer", "nan"])
def test_statistics_with_odd_tensors(name: str, kind: str, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    from prunelab.calibration import statistics as module

    path = statistics_file(tiny, tmp_path / "s.safetensors")
    with safe_open(path, framework="pt") as file:
        words = dict(file.metadata())
    tensors = load_file(path)
    given = tensors[name]
    tensors[name] = {
        "scalar": given[0].clone(),
        "matrix": given[None],
        "float32": given.float(),
        "longer": torch.cat([given, given]),
        "nan": torch.full_like(given, torch.nan),
    }[kind]
    content = "" if kind == "scalar" else module._content(tensors)
    save_file(tensors, path, {**words, "content": content})
    with pytest.raises(DataError) as error:
        ActivationStatistics.load(path)
    assert len(str(error.value).splitlines()) == 1
    assert json.dumps(str(error.value))
