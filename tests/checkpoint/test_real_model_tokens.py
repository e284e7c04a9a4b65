"""Real models' tokenizers in llama.cpp; `tools/gguf_tokens.py` reads more lines, with the models' weights."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from conftest import make_tiny

from prunelab.checkpoint.gguf.export import export_gguf
from prunelab.checkpoint.gguf.tokenizer import vocabulary_of
from prunelab.models.loading import LanguageModel, load_tokenizer

pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
pytest.importorskip("xllamacpp", reason="no llama.cpp: pip install xllamacpp")

MODELS = Path(os.environ.get("PRUNELAB_REAL_MODELS", Path.home() / ".cache/prunelab-real-models"))
LINES = 300


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools/gguf_tokens.py"
    spec = importlib.util.spec_from_file_location("gguf_tokens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lines(tool: ModuleType, shared: Path) -> list[str]:
    found: list[str] = tool.lines_of(shared / "hub", LINES)
    assert len(found) == 2 * LINES
    return found


def real(name: str) -> LanguageModel:
    """A real model's tokenizer with a tiny model: the weights say nothing of tokens."""
    if not (MODELS / name).is_dir():
        pytest.skip(f"no {name} in {MODELS}: set PRUNELAB_REAL_MODELS")
    tokenizer = load_tokenizer(str(MODELS / name))
    model = make_tiny("llama", vocab_size=len(tokenizer), hidden_size=32).model
    return replace(model, name=name, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("name", "steps", "pre"),
    [
        (
            "smollm2-135m-instruct",
            "smollm",
            "smollm",
        ),  # steps as published; transformers lost them on the way from GGUF
        ("qwen2.5-coder-0.5b-instruct", "", "qwen2"),
    ],
)
def test_real_tokens(name: str, steps: str, pre: str, tool: ModuleType, lines: list[str], tmp_path: Path) -> None:
    model = real(name)
    if steps:
        tool.with_steps_of(model, steps)
    assert vocabulary_of(model).pre == pre
    path = export_gguf(model, tmp_path / "x.gguf").path
    assert tool.read_otherwise(model, path, lines) == []
    if steps:
        published = MODELS / f"{name}.gguf"
        assert tool.read_otherwise(model, published, lines) == [], "the file of which the folder was made"
