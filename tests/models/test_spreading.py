"""Models that do not fit: run from the disk, and in a study cut block by block, with the same figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ran
from small_study import figures, files, run, small_study

from prunelab.errors import InvalidRequest
from prunelab.models.loading import load_model
from prunelab.models.offloading import OffloadedModel, load_offloaded
from prunelab.models.streaming.model import weight_bytes_of
from prunelab.studies.config import study_config

CheckpointOf = Callable[[str], Path]


@pytest.mark.parametrize("variant", ["llama", "qwen2", "gemma2"])
def test_a_model_run_from_the_disk_says_the_same(variant: str, tiny_checkpoint: CheckpointOf) -> None:
    folder = str(tiny_checkpoint(variant))
    size = weight_bytes_of(folder)
    whole = load_offloaded(folder, device="cpu", memory=size)
    assert not isinstance(whole, OffloadedModel)
    spread = load_offloaded(folder, device="cpu", memory=int(0.6 * size))
    assert isinstance(spread, OffloadedModel)
    assert "disk" in spread.model.hf_device_map.values()
    assert any(p.is_meta for p in spread.model.parameters()), "parts have no place in memory"
    assert (spread.fingerprint, spread.dtype, spread.device) == (whole.fingerprint, whole.dtype, whole.device)
    ids = torch.tensor([[256, 3, 5, 8, 13]])
    with torch.inference_mode():
        assert torch.equal(spread.model(ids).logits, load_model(folder).model(ids).logits)
    with pytest.raises(InvalidRequest, match=r"does not hold the embedding of .*: give more --memory"):
        load_offloaded(folder, device="cpu", memory=100)


def test_a_study_of_what_does_not_fit_finds_the_same(
    tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("llama")
    given = small_study(folder, corpus, miniature, tmp_path / "whole")
    whole = run(given)
    size = weight_bytes_of(str(folder))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("prunelab.models.streaming.model.is_too_large", lambda weights, budget: True)
        patched.setattr("prunelab.models.offloading.free_memory", lambda device: int(0.6 * size))
        streamed = run({**given, "out": str(tmp_path / "streamed")})
    assert figures(streamed) == figures(whole)
    assert list(files(tmp_path / "streamed")) == list(files(tmp_path / "whole"))
    assert not list((tmp_path / "streamed" / "made").iterdir()), "what was measured is removed"


def test_amounts_are_checked_before_anything_is_loaded(tiny_checkpoint: CheckpointOf) -> None:
    with pytest.raises(InvalidRequest, match="--memory much is not an amount of memory"):
        study_config({"models": [str(tiny_checkpoint("llama"))], "memory": "much"})


def test_the_command_says_that_parts_stay_on_the_disk(
    tiny_checkpoint: CheckpointOf, corpus: Path, command: Callable[..., Ran]
) -> None:
    folder = tiny_checkpoint("llama")
    ran = command("evaluate", folder, "--benchmark", f"text:{corpus}", "--device", "cpu", "--memory", "100KB")
    assert ran.code == 0, ran
    assert "does not fit in --memory: parts of it stay on disk" in ran.out
