"""Two identical runs give the same figures, also in bfloat16 and whatever memory is free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import figures, run, small_study

CheckpointOf = Callable[[str], Path]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_figures_do_not_follow_free_memory(
    dtype: str,
    tiny_checkpoint: CheckpointOf,
    corpus: Path,
    miniature: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path)
    given |= {"dtype": dtype, "benchmarks": ["boolq", "arc_easy", "stereoset"], "methods": ["flap"], "limit": 6}
    found = []
    for number, free in enumerate((1 << 40, 1 << 25)):
        monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _, free=free: free)
        found.append(figures(run({**given, "out": str(tmp_path / f"run-{number}")})))
    assert found[0] == found[1]
    assert {row["details"]["tokens_a_batch"] for row in found[0]} == {512}


def test_a_batch_that_had_to_shrink_is_told_with_the_cell(
    tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path / "run")
    given |= {"benchmarks": ["boolq"], "methods": ["flap"], "limit": 4}
    monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _: 1 << 18)
    with pytest.warns(UserWarning, match="not enough free memory for batches of 512 tokens"):
        rows = figures(run(given))
    for row in rows:
        assert row["details"]["tokens_a_batch"] < row["details"]["tokens_a_batch_with_enough_memory"] == 512
