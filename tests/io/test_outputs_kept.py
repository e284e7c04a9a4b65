"""What a user has is not replaced: outputs only take the place of what prunelab wrote."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import run as run_small
from small_study import small_study

from prunelab.calibration.cache import calibrated
from prunelab.errors import InvalidRequest, OutputExists, PrunelabError
from prunelab.io.atomic_write import atomic_file, atomic_folder, refuse_existing, write_text
from prunelab.io.outputs import foreign_to_checkpoint, is_gguf, is_measurements, is_statistics
from prunelab.io.paths import ensure_writable, inside, local_path, path_fault, require_output_file
from prunelab.io.unfinished import sweep_below, temporary_folder
from prunelab.models.loading import load_model
from prunelab.studies.config import study_config
from prunelab.studies.runner import run_study

CheckpointOf = Callable[[str], Path]
Command = Callable[..., Ran]
State = dict[str, tuple[int, bytes | str]]


def state(folder: Path) -> State:
    """What lies below a folder: kinds, contents and links' targets."""
    found: State = {}
    for path in sorted(folder.rglob("*")):
        mode = os.lstat(path).st_mode
        content: bytes | str = os.readlink(path) if path.is_symlink() else b""
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (mode, content)
    return found


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = state(folder)
    yield
    assert state(folder) == before


def refused(ran: Ran, text: str = "") -> None:
    assert ran.code == 2, ran
    assert len(ran.err.strip().splitlines()) == 1, ran.err
    assert text in ran.err, ran.err


def strangers(folder: Path, weights: Path) -> dict[str, Path]:
    """Existing things that no command may replace, by what they are."""
    folder.mkdir()
    made = {name: folder / name for name in ("notes", "weights", "link", "dangling", "fifo", "loop", "table.csv")}
    made["notes"].write_text("my notes")
    made["weights"].write_bytes(weights.read_bytes())
    made["link"].symlink_to(made["notes"])
    made["dangling"].symlink_to(folder / "nothing")
    os.mkfifo(made["fifo"])
    made["loop"].symlink_to(made["loop"])
    made["table.csv"].write_text("a,b\n1,2\n")
    return {**made, "device": Path("/dev/null")}


def test_no_command_replaces_what_is_not_its_own(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    model = tiny_checkpoint("llama")
    text = ("--calibration", corpus, "--samples", "2", "--sequence-length", "16")
    there = strangers(tmp_path / "mine", model / "model.safetensors")
    with unchanged(tmp_path / "mine"):
        for path in there.values():
            refused(command("prune", model, *text, "--out", tmp_path / "out", "--statistics", path))
            refused(command("evaluate", model, "--benchmark", f"text:{corpus}", "--out", path, "--overwrite"))
            refused(command("throughput", model, "--out", path, "--overwrite"))
            refused(command("export", model, "--out", path, "--overwrite"))
            refused(command("prune", model, *text, "--out", path, "--overwrite"))
            refused(command("study", "--model", model, "--benchmark", "throughput", "--out", path))
            refused(command("extract-language-model", model, "--out", path, "--overwrite"))
            refused(command("fetch", "--calibration", "c4", "--to", path / "x"))
    assert not (tmp_path / "out").exists()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "place",
    ["http://example.org/x.json", "s3://bucket/x.json", "file:///tmp/x.json", "x" * 300 + ".json", "below/a\tb.json",
     "file.txt/x.json", "", "é" * 200 + ".json"],
)  # fmt: skip
def test_places_that_are_none(
    place: str, command: Command, tiny_checkpoint: CheckpointOf, in_folder: Path, corpus: Path
) -> None:
    (in_folder / "file.txt").write_text("mine")
    model = tiny_checkpoint("llama")
    with unchanged(in_folder):
        refused(command("throughput", model, "--out", place))
        refused(command("prune", model, "--calibration", corpus, "--out", place))
        refused(command("prune", model, "--calibration", corpus, "--out", "out", "--statistics", place))
        refused(command("export", model, "--out", place))
        refused(command("study", "--model", model, "--benchmark", "throughput", "--out", place))
        if place:
            refused(command("merge", in_folder, in_folder, "--out", place))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    for check in (local_path, lambda t: ensure_writable(Path(t)), lambda t: inside(Path("/tmp"), t)):
        message = ""
        try:
            check(text)
        except InvalidRequest as error:
            message = str(error)
        assert "\n" not in message
        message.encode("utf-8")


def test_arguments_that_are_not_utf8(command: Command, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    refused(command("throughput", tiny_checkpoint("llama"), "--out", f"{tmp_path}/\udcff.json"), "is not UTF-8")


def test_statistics_of_another_model_are_replaced_and_ours_are_told(
    tiny_checkpoint: CheckpointOf, corpus: Path, command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "kept.safetensors"
    text = ("--calibration", corpus, "--samples", "2", "--sequence-length", "16")
    for number, variant in enumerate(("llama", "mistral", "mistral")):
        out = tmp_path / f"out-{number}"
        ran = command("prune", tiny_checkpoint(variant), *text, "--out", out, "--statistics", path)
        assert ran.code == 0, ran
    assert is_statistics(path)
    assert not is_statistics(tiny_checkpoint("llama") / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-100])  # ours, cut short
    ran = command("prune", tiny_checkpoint("llama"), *text, "--out", tmp_path / "again", "--statistics", path)
    assert ran.code == 0, ran
    inside_out = tmp_path / "new" / "s.safetensors"
    ran = command("prune", tiny_checkpoint("llama"), *text, "--out", tmp_path / "new", "--statistics", inside_out)
    refused(ran, "lies in the output folder")


def test_a_folder_in_the_place_of_hidden_states(
    tiny_checkpoint: CheckpointOf, corpus: Path, command: Command, tmp_path: Path
) -> None:
    """It is emptied when a streamed calibration is done."""
    (tmp_path / "s.streaming").mkdir()
    (tmp_path / "s.streaming" / "thesis.txt").write_text("mine")
    ran = command(
        "prune", tiny_checkpoint("llama"), "--calibration", corpus, "--samples", "2", "--sequence-length", "16",
        "--out", tmp_path / "out", "--statistics", tmp_path / "s", "--memory", "100KB",
    )  # fmt: skip
    refused(ran, "s.streaming contains something other")
    assert (tmp_path / "s.streaming" / "thesis.txt").read_text() == "mine"


def test_a_cache_that_cannot_be_used(
    tiny_checkpoint: CheckpointOf, corpus: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for cache in (str(tmp_path / "file"), "/proc/none", "/dev/null/x"):
        monkeypatch.setenv("PRUNELAB_CACHE", cache)
        ran = command("prune", tiny_checkpoint("llama"), "--calibration", corpus, "--samples", "2", "--out", "o")
        refused(ran, "PRUNELAB_CACHE" if "proc" not in cache else "")
        refused(command("throughput", "pocket-llama", "--out", cache))
    assert (tmp_path / "file").read_text() == "mine"


STRANGE_FOLDERS: dict[str, dict[str, str]] = {
    "a study's YAML": {"study.yaml": "models: [x]\n", "results.csv": "a\n"},
    "an index": {"index.json": "{}", "study.yaml": "models: [x]\n", "failures.json": "[]"},
    "other files": {"index.json": '{"files": ["a.txt"]}', "failures.json": "[]", "study.yaml": "models: [x]\n"},
    "a lock": {".lock": "somebody's", "study.yaml": "models: [x]\n"},
    "only a report": {"report/index.html": "mine"},
    "made": {"made/pot.txt": "clay"},
    "a lock file of a study, and no study": {".lock": "0123456789ab process 7 on host\n", "thesis.tex": "mine"},
}


@pytest.mark.parametrize("kind", STRANGE_FOLDERS)
def test_a_study_only_writes_into_a_folder_of_its_own(
    kind: str, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "folder"
    for name, text in STRANGE_FOLDERS[kind].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    fields = {"models": [str(tiny_checkpoint("llama"))], "benchmarks": [f"text:{corpus}"], "out": str(folder)}
    with unchanged(tmp_path):
        with pytest.raises(OutputExists, match="is not empty and is not the folder of a study"):
            run_study(study_config({**fields, "methods": ["random_depth"], "ratios": [0.25]}))
        refused(command("study", "--model", fields["models"][0], "--benchmark", "throughput", "--out", folder))


def test_the_configuration_that_was_given_stays(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"# mine\nmodels: [{tiny_checkpoint('llama')}]\nbenchmarks: ['text:{corpus}']\n")
    with unchanged(tmp_path):
        refused(command("study", path, "--out", tmp_path), "it contains study.yaml")


@pytest.mark.parametrize("name", ["results.csv", "report", "made", "cells", "report/tables", "index.json", "plans"])
def test_a_run_of_which_a_part_is_a_link(
    name: str, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    fields = {"models": [str(tiny_checkpoint("llama"))], "benchmarks": [f"text:{corpus}"], "out": str(tmp_path / "r")}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    (tmp_path / "r" / name).parent.mkdir(parents=True)
    (tmp_path / "r" / ".lock").write_text("0123456789ab process 7 on host\n")
    (tmp_path / "r" / "study.yaml").write_text("models: [x]\n")
    (tmp_path / "r" / name).symlink_to(tmp_path / "mine")
    with unchanged(tmp_path), pytest.raises(OutputExists, match="is a link, but the study writes a"):
        run_study(study_config(fields))


def test_a_run_that_was_killed_at_once_goes_on_and_one_without_its_lock(
    tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path
) -> None:
    fields = small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".study.yaml-abcd_123").write_text("models")
    first = run_small(fields)
    assert not (tmp_path / "run" / ".study.yaml-abcd_123").exists()
    (tmp_path / "run" / ".lock").unlink()  # as `cp -r run/* elsewhere` leaves it
    index = tmp_path / "run" / "index.json"
    index.write_text(json.dumps({"files": json.loads(index.read_text())["files"]}))  # as earlier versions wrote it
    assert run_small(fields).measurements == first.measurements
    index.unlink()
    for left in ("", "0123456789ab process 7 on host\nst\n"):  # killed while the lock was written
        (tmp_path / "run" / ".lock").write_text(left)
        assert run_small(fields).measurements == first.measurements
        index.unlink()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert run_small({**fields, "out": str(tmp_path / "link")}).measurements == first.measurements


def test_a_checkpoint_is_overwritten_only_where_all_of_it_is_one(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    for name in ("notes.txt", "optimizer.pt", "model.gguf", "checkpoint-7"):
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        for path in tiny_checkpoint("llama").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        assert foreign_to_checkpoint(folder) is None
        refuse_existing(folder, overwrite=True, folder=True)
        (folder / name).mkdir() if name.startswith("checkpoint") else (folder / name).write_text("mine")
        with pytest.raises(OutputExists, match=f"such as {name}"):
            refuse_existing(folder, overwrite=True, folder=True)
        with pytest.raises(OutputExists, match=f"such as {name}"), atomic_folder(folder, overwrite=True):
            pytest.fail("it was begun")


def test_outputs_are_known_by_their_contents(tmp_path: Path) -> None:
    rows = [{"model": "m", "benchmark": "b", "metric": "acc", "value": 1.0}]
    contents = {
        is_measurements: (json.dumps(rows), ["[]", "{}", "[1]", "not JSON", "[" * 100_000, json.dumps([{"model": 1}])]),
        is_gguf: ("GGUF...", ["GGU", "", "text"]),
        is_statistics: ("", ["x", "\xff" * 9, "\x02\0\0\0\0\0\0\0{}", "\x01\0\0\0\0\0\0\0{"]),
    }
    path = tmp_path / "file"
    for is_ours, (ours, others) in contents.items():
        if ours:
            path.write_text(ours)
            assert is_ours(path)
            require_output_file(path, True, is_ours)
        for other in others:
            path.write_text(other, encoding="latin-1")
            assert not is_ours(path)
            if other:
                with pytest.raises(OutputExists):
                    require_output_file(path, True, is_ours)
                assert path.read_text(encoding="latin-1") == other


def killed_while(write: Callable[[], Any]) -> None:
    """Run in a child that kills itself in the middle of writing."""
    child = os.fork()
    if child == 0:
        try:
            write()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_kill_leaves_is_swept_by_the_next_run(tmp_path: Path) -> None:
    file, folder, cut = tmp_path / "a.json", tmp_path / "b", tmp_path / "c" / "d.csv"

    def write(path: Path) -> None:
        with atomic_file(path) as aside:
            aside.write_text("half")
            die()

    def write_folder() -> None:
        with atomic_folder(folder) as aside:
            (aside / "half").write_text("half")
            die()

    killed_while(lambda: write(file))
    killed_while(lambda: write(file))
    killed_while(write_folder)
    killed_while(lambda: write(cut))
    assert len(list(tmp_path.rglob(".*-unfinished-*"))) == 3, "the second swept what the first had left"
    write_text(file, "whole")
    with atomic_folder(folder) as aside:
        (aside / "whole").touch()
    sweep_below(tmp_path / "c")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "b", "c", "whole"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.json") as aside:
        aside.write_text("half")
        sweep_below(tmp_path)
        with atomic_file(tmp_path / "a.json") as other:
            other.write_text("other")
        assert aside.read_text() == "half"
    assert (tmp_path / "a.json").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_kill_between_two_renames_loses_no_folder(tmp_path: Path) -> None:
    (tmp_path / ".out-old-abcdefgh").mkdir()
    (tmp_path / ".out-old-abcdefgh" / "old").mkdir()
    (tmp_path / ".out-old-abcdefgh" / "old" / "config.json").write_text("{}")
    with pytest.raises(OutputExists), atomic_folder(tmp_path / "out") as _:
        pytest.fail("it was begun")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "config.json").read_text() == "{}"


def test_temporary_folders_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def hold() -> None:
        with temporary_folder("offload") as folder:
            (folder / "large").write_text("x")
            die()

    killed_while(hold)
    (left,) = tmp_path.iterdir()
    with temporary_folder("offload") as folder:
        assert folder.is_dir()
        assert not left.exists()
    assert not list(tmp_path.iterdir())


def test_errors_about_paths_are_told_from_others() -> None:
    for name in ("x" * 5000, "/dev/null/x", "/proc/none/x"):
        with pytest.raises(OSError, match="Errno") as error:
            os.open(name, os.O_WRONLY | os.O_CREAT)
        told = path_fault(error.value)
        assert told is None or name[:20] in told
    assert path_fault(OSError(5, "Input/output error", "disk")) is None
    assert path_fault(OSError(13, "Permission denied")) is None


def test_models_at_impossible_paths(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    for name in ("x" * 5000, "a/" * 3000, str(tmp_path / "loop"), str(tmp_path / "file" / "x"), "a\0b", "", "\udcff"):
        with pytest.raises(PrunelabError) as error:
            load_model(name)
        assert "\n" not in str(error.value)


def test_statistics_are_written_where_nothing_else_is(tiny: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OutputExists, match="is not calibration statistics of prunelab"):
        calibrated(tiny("llama").model, tiny("llama").calibration, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
