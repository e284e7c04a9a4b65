"""A study whose files were damaged goes on and ends in the same figures; `fuzz/test_kills.py` kills studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import figures, files, run, small_study

CheckpointOf = Callable[[str], Path]


@pytest.fixture
def given(tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path) -> dict[str, Any]:
    return small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path / "run")


def test_a_second_run_writes_no_measurement_plan_or_statistics(given: dict[str, Any]) -> None:
    first = run(given)
    before = files(Path(given["out"]))
    assert figures(run(given)) == figures(first)
    assert files(Path(given["out"])) == before


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _changed(path: Path) -> None:
    """One figure is another, and the file is as good JSON as before."""
    text = path.read_text()
    assert '"n": 20,' in text
    path.write_text(text.replace('"n": 20,', '"n": 21,'))


def _gone(path: Path) -> None:
    path.unlink()


DAMAGES = [
    ("cells/*flap*/text*.json", _cut_short, "is damaged: renamed to"),
    ("cells/*flap*/text*.json", _changed, "figures do not match its hash: renamed to"),
    ("cells/*flap*/text*.samples.parquet", _cut_short, "sample records .* are damaged or missing: renamed to"),
    ("cells/*flap*/text*.samples.parquet", _gone, "sample records .* are damaged or missing: renamed to"),
    ("plans/*flap*.json", _cut_short, "is damaged: renamed to .* and computed again"),
]


@pytest.mark.parametrize(("pattern", "do", "message"), DAMAGES)
def test_what_is_damaged_is_named_set_aside_and_made_anew(
    pattern: str, do: Callable[[Path], None], message: str, given: dict[str, Any]
) -> None:
    before = figures(run(given))
    (path,) = Path(given["out"]).glob(pattern)
    do(path)
    with pytest.warns(UserWarning, match=message):
        after = figures(run(given))
    assert after == before
    assert path.exists()
    assert list(path.parent.glob("*.damaged"))


def test_damaged_statistics_are_collected_anew(given: dict[str, Any]) -> None:
    before = figures(run(given))
    folder = Path(given["out"])
    (statistics,) = folder.glob("statistics/*.safetensors")
    written = bytearray(statistics.read_bytes())
    written[-3] ^= 0x40  # one bit of one number
    statistics.write_bytes(written)
    for path in (*folder.glob("plans/*flap*"), *folder.glob("cells/*flap*/*")):
        path.unlink()
    with pytest.warns(UserWarning, match="safetensors is damaged: renamed to .* and collected again"):
        assert figures(run(given)) == before
    assert list(folder.glob("statistics/*.damaged"))
