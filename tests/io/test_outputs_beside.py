"""What lies beside an output stays: sweeping takes only what prunelab itself can have left there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import Ran
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_study import run as run_study
from small_study import small_study
from test_outputs_kept import refused, unchanged

from prunelab.calibration import self_generated
from prunelab.calibration.cache import cache_folder, require_statistics_place
from prunelab.errors import OutputExists
from prunelab.io.atomic_write import atomic_folder, write_text
from prunelab.studies.run_folder import is_run, sweep_run

EARLIER = Path(__file__).parents[1] / "earlier" / "run"
CheckpointOf = Callable[[str], Path]
Command = Callable[..., Ran]


def aged(folder: Path) -> None:
    """As if nobody had touched it for a day."""
    then = time.time() - 86400
    for path in folder.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


@pytest.mark.parametrize(
    "name", ["old-2024", "old-copy", "old-abcdefgh", "20261201", "original", "unfinished-", "unfinished-draft", "old-"]
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_copies_beside_an_output_stay(name: str, as_folder: bool, tmp_path: Path) -> None:
    for output in ("out.json", "out"):
        path = tmp_path / f".{output}-{name}"
        if as_folder:
            path.mkdir()
            path /= "thesis.txt"
        path.write_text("mine")
    aged(tmp_path)
    write_text(tmp_path / "out.json", "{}")
    with atomic_folder(tmp_path / "out") as aside:
        (aside / "config.json").write_text("{}")
    write_text(tmp_path / "out.json", "{} ")
    assert [path.read_text() for path in sorted(tmp_path.rglob("*")) if path.is_file()].count("mine") == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.text("abcdefghijklmnopqrstuvwxyz0123456789_-.", max_size=12), content=st.binary(min_size=1, max_size=3)
)
def test_any_file_with_something_in_it_beside_an_output_stays(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f".out.csv-{suffix}"
    path.write_bytes(content)
    aged(tmp_path)
    write_text(tmp_path / "out.csv", "a")
    assert path.read_bytes() == content
    path.unlink()


def test_files_of_the_user_in_a_runs_folder_stay(tmp_path: Path) -> None:
    names = [".notes.md-20261201", ".mine.csv-abcdefgh", "mine/.table.csv-abcdefgh", ".results.csv-20261201"]
    for name in (*names, ".results.csv-abcdefgh", "cells/x/.boolq.json-abcdefgh", "plans/.p.json-unfinished-abcdefgh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    sweep_run(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(names)


@pytest.mark.parametrize("cache", ["", ".", "{}", "{}/mine"])
def test_a_cache_folder_makes_no_file_of_the_user_ours(
    cache: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNELAB_CACHE", cache.format(in_folder))
    (in_folder / "mine" / "statistics").mkdir(parents=True)
    (in_folder / "thesis.txt").write_text("mine")
    (in_folder / "mine" / "statistics" / "thesis.txt").write_text("mine")
    for path in (in_folder / "thesis.txt", Path("thesis.txt"), in_folder / "mine" / "statistics" / "thesis.txt"):
        with pytest.raises(OutputExists, match="is not calibration statistics"):
            require_statistics_place(path)
    damaged = cache_folder() / "statistics" / f"{'0a' * 8}.safetensors"  # killed by a full disk: it is made again
    if cache:
        damaged.parent.mkdir(parents=True, exist_ok=True)
        damaged.write_text("x")
        require_statistics_place(damaged)
    else:
        assert cache_folder().name == "prunelab"


def test_text_that_a_model_wrote_replaces_its_own_only(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["self_generated", str(tiny_checkpoint("llama")), "--documents", "2", "--tokens", "8", "--out"]
    path, mine = tmp_path / "own.jsonl", tmp_path / "thesis.txt"
    mine.write_text("mine")
    tries: tuple[tuple[Path, list[str], int], ...] = (
        (mine, [], 2),
        (mine, ["--overwrite"], 2),
        (path, [], 0),
        (path, [], 2),
        (path, ["--overwrite"], 0),
    )
    for out, more, code in tries:
        monkeypatch.setattr("sys.argv", [*words, str(out), *more])
        with pytest.raises(SystemExit) if code else nullcontext():
            self_generated.main()
        assert capsys.readouterr().err.count("error: ") == bool(code)
    assert mine.read_text() == "mine"


def test_runs_that_were_moved_copied_or_killed_go_on(
    tiny_checkpoint: CheckpointOf,
    corpus: Path,
    miniature: Path,
    in_folder: Path,
    command: Command,
    recwarn: pytest.WarningsRecorder,
) -> None:
    fields = small_study(tiny_checkpoint("llama"), corpus, miniature, Path("run"))
    (in_folder / "run").mkdir()  # an empty folder is a place like any other
    first = run_study(fields)
    shutil.copytree("run", "copied", copy_function=shutil.copy)  # as `cp -r`, with other times
    shutil.copytree("run", "visible", ignore=lambda _, names: [name for name in names if name.startswith(".")])
    shutil.copytree("visible", "killed")
    for name in ("index.json", "failures.json", "results.csv", "results.parquet", "comparisons.csv"):
        (in_folder / "killed" / name).unlink()
    shutil.rmtree("killed/report", ignore_errors=True)
    (in_folder / "moved").mkdir()
    os.rename("run", "moved/here")
    for place in ("copied", "visible", "killed", "./moved/here"):
        assert run_study({**fields, "out": place}).measurements == first.measurements
        with unchanged(in_folder):
            assert command("results", place).code == 0
    os.chdir("copied")
    assert command("report", ".").code == 0
    assert not [str(w.message) for w in recwarn if "set aside" in str(w.message)]


def test_a_copy_of_a_killed_run_with_something_else_in_it(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    for name in (".lock", "index.json"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert not is_run(tmp_path / "run")
    with unchanged(tmp_path):
        refused(
            command(
                "study", "--model", tiny_checkpoint("llama"), "--benchmark", "throughput", "--out", tmp_path / "run"
            )
        )
