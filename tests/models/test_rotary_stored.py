"""Rotary frequencies that older libraries stored are held against config.json."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunelab.models.bundled import checkpoint_of
from prunelab.models.loading import inspected, load_model


def with_frequencies(folder: Path, theta: float, dtype: torch.dtype, layers: range = range(10)) -> str:
    """pocket-llama, whose rope_theta is 500,000, with stored frequencies of another."""
    source = checkpoint_of("pocket-llama")
    assert source is not None
    shutil.copytree(source, folder)
    frequencies = (theta ** -(torch.arange(0, 32, 2, dtype=torch.float64) / 32)).to(dtype)
    more = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": frequencies.clone() for layer in layers}
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_frequencies_pass_in_every_format(dtype: torch.dtype, tmp_path: Path) -> None:
    assert inspected(with_frequencies(tmp_path / "m", 5e5, dtype)).corrections == ()


@pytest.mark.parametrize(("theta", "shown"), [(1e4, "10,000"), (1e6, "1,000,000"), (2e5, "200,000")])
def test_other_frequencies_are_named(theta: float, shown: str, tmp_path: Path, command: Any) -> None:
    folder = with_frequencies(tmp_path / "m", theta, torch.float32, range(7, 8))
    [line] = inspected(folder).corrections
    assert f"model.layers.7.self_attn.rotary_emb.inv_freq (those of rope_theta {shown})" in line
    assert "rope_theta 500,000 in config.json" in line
    with pytest.warns(UserWarning, match="correct rope_theta"):
        load_model(folder, device="cpu")
    assert "rope_theta 500,000" in " ".join(command("doctor", folder).out.replace("│", " ").split())
