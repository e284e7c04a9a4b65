"""Text that a model writes for its own calibration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Tiny

from prunelab.calibration import draw_calibration_set
from prunelab.calibration import self_generated as own_text
from prunelab.errors import InvalidRequest
from prunelab.models.loading import load_model


def test_a_seed_decides_what_is_written(tiny: Callable[[str], Tiny]) -> None:
    model = tiny("llama").model
    first = own_text.own_text(model, 3, 20)
    assert first == own_text.own_text(model, 3, 20)
    assert first != own_text.own_text(model, 3, 20, seed=1)
    assert len(set(first)) == 3
    assert all(len(model.tokenizer(text, add_special_tokens=False).input_ids) < 90 for text in first)


def test_what_stories260k_writes_is_calibrated_on(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = shared / "models" / "stories260K", tmp_path / "own.jsonl"
    command = ["own_text", str(folder), "--out", str(out), "--documents", "4", "--tokens", "64"]
    monkeypatch.setattr(sys, "argv", command)
    own_text.main()
    assert "4 documents written" in capsys.readouterr().out
    texts = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert sum("the" in text.split() for text in texts) >= 2, texts
    drawn = draw_calibration_set(
        str(out), load_model(str(folder), device="cpu").tokenizer, samples=2, sequence_length=32, held_out=1
    )
    assert drawn.token_ids.shape == (2, 32)


def test_nothing_to_write_or_no_model_is_refused(
    tiny: Callable[[str], Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidRequest, match="give at least 1 document of 2 tokens"):
        own_text.own_text(tiny("llama").model, 0, 20)
    monkeypatch.setattr(sys, "argv", ["own_text", str(tmp_path / "none"), "--out", str(tmp_path / "o.jsonl")])
    with pytest.raises(SystemExit) as stopped:
        own_text.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
