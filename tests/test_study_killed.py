"""A study that was killed, or whose files were damaged, goes on and ends in the same figures."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import figures, files, run, small_study

CheckpointOf = Callable[[str], Path]
KILLS = 20


@pytest.fixture
def given(tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path) -> dict[str, Any]:
    return small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path / "run")


def killed_after(seconds: float, given: dict[str, Any]) -> bool:
    """Run the study in a child, and kill it; false where it was done before."""
    child = os.fork()
    if child == 0:
        try:
            run(given)
            os._exit(0)
        except BaseException:  # noqa: BLE001  (whatever it is, the child must not go on as the parent's test)
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


def test_a_study_killed_at_any_moment_goes_on(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    run(given)  # what a process loads once does not count
    began = time.monotonic()
    whole = run({**given, "out": str(tmp_path / "whole")})
    took = time.monotonic() - began
    chance = random.Random(0)
    kills, folders = 0, [tmp_path / "killed-0"]
    kept: dict[str, int] = {}
    while kills < KILLS:
        if killed_after(chance.uniform(0, 0.7 * took), {**given, "out": str(folders[-1])}):
            kills += 1
        else:
            folders.append(tmp_path / f"killed-{len(folders)}")
            kept = {}
        now = files(folders[-1])
        assert all(now.get(path) == then for path, then in kept.items()), "what was finished is not repeated"
        kept = now
    for folder in folders:
        assert figures(run({**given, "out": str(folder)})) == figures(whole)
    assert not list(tmp_path.glob("killed-*/**/*.damaged"))


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
    ("cells/*flap*/text*.json", _cut_short, "is damaged: set aside as"),
    ("cells/*flap*/text*.json", _changed, "figures are not those that were written: set aside as"),
    ("cells/*flap*/text*.samples.parquet", _cut_short, "sample records .* are damaged or missing: set aside as"),
    ("cells/*flap*/text*.samples.parquet", _gone, "sample records .* are damaged or missing: set aside as"),
    ("plans/*flap*.json", _cut_short, "is damaged: set aside as .* and made anew"),
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
    with pytest.warns(UserWarning, match="safetensors is damaged: set aside as .* and collected anew"):
        assert figures(run(given)) == before
    assert list(folder.glob("statistics/*.damaged"))
