"""A few kills of the harness; `python tests/fuzz/kills.py --kills 1000` does many."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import kill_all

KILLS = 20


def test_studies_killed_at_any_moment_end_as_if_nobody_had_interrupted_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    ended = kill_all(tmp_path / "kills", KILLS, seed=0, names=("scored", "drawn", "streamed"), say=lambda line: None)
    assert ended >= 3
