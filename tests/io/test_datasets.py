"""Where data come from: folders that change, files of one's own, and a hub that is copied for later."""

from __future__ import annotations

import errno
import fnmatch
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from conftest import Ran
from miniature_hub import write_data_set

from prunelab.errors import DataError, DiskFull
from prunelab.evaluation.benchmarks import benchmarks
from prunelab.evaluation.benchmarks.base import EvaluationSettings
from prunelab.io.datasets import Source, documents_hash, fetch_sources, read_documents

Command = Callable[..., Ran]
SOURCE = Source("owner/data", "main")


def write(root: Path, *texts: str) -> Path:
    write_data_set(root / "owner/data", {"main": {"test": [{"text": text} for text in texts]}})
    return root


def test_a_folder_is_read_as_it_is_now(tmp_path: Path) -> None:
    """The library's own cache would give the first contents of any folder of this name for ever."""
    first, second = write(tmp_path / "first", "a", "b"), write(tmp_path / "second", "c")
    assert SOURCE.load("test", first)["text"] == ["a", "b"]
    assert SOURCE.load("test", second)["text"] == ["c"]
    write(first, "changed")
    assert SOURCE.load("test", first)["text"] == ["changed"]
    write_data_set(first / "owner/data", {"main": {"test": [{"text": "x"}], "train": [{"text": "y"}]}})
    assert SOURCE.splits(first) == ["test", "train"]
    assert SOURCE.load_splits(first)["train"]["text"] == ["y"]


def test_the_fingerprint_is_of_the_documents_alone(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", "a", "b"), write(tmp_path / "second", "a", "b")
    assert documents_hash(SOURCE.load("test", first)) == documents_hash(SOURCE.load("test", second))
    assert documents_hash(SOURCE.load("test", write(first, "b", "a"))) != documents_hash(SOURCE.load("test", second))


def test_missing_data_name_the_command_that_brings_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    text = r"allenai/ai2_arc \(ARC-Easy\) is not on the hub.*Couldn't reach the hub\): run `prunelab fetch --benchmark "
    with pytest.raises(
        DataError, match=text + "arc_easy --to DIR` on a machine with internet access, and give --datasets-root"
    ):
        benchmarks["arc_easy"].check(EvaluationSettings())
    with pytest.raises(DataError, match=r"neither readable from .*missing") as caught:
        benchmarks["gsm8k"].check(EvaluationSettings(datasets_root=tmp_path / "missing"))
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_data_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "owner/data"
    folder.mkdir(parents=True)
    (folder / "data.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(DataError, match=r"owner/data \(main, split test\) is neither readable"):
        SOURCE.load("test", tmp_path)


@pytest.fixture
def hub(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that is a folder, from which `snapshot_download` copies what its patterns allow."""
    folder = tmp_path / "the-hub"
    shutil.copytree(miniature, folder)
    (folder / "allenai/ai2_arc/ARC-Easy/huge.bin").write_text("never wanted")

    def snapshot_download(repo_id: str, *, repo_type: str, local_dir: Path, allow_patterns: Sequence[str]) -> str:
        assert repo_type == "dataset"
        source = folder / repo_id
        if not source.is_dir():
            raise ConnectionError(f"{repo_id} cannot be reached")
        for path in source.rglob("*"):
            name = str(path.relative_to(source))
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                target = local_dir / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_was_fetched_serves_without_the_hub(
    hub: Path, tmp_path: Path, command: Command, tiny_checkpoint: Callable[[str], Path]
) -> None:
    to = tmp_path / "data"
    ran = command("fetch", "--benchmark", "arc_easy", "--benchmark", "wikitext2", "--to", to)
    assert ran.code == 0, ran
    assert f"fetched {to}/allenai/ai2_arc" in ran.out
    assert files_below(to / "allenai/ai2_arc") == ["ARC-Easy/test.jsonl", "ARC-Easy/validation.jsonl", "README.md"]
    assert {path.parent.name for path in to.rglob("README.md")} == {
        "ai2_arc", "wikitext", "wikitext_document_level",
    }  # fmt: skip
    scores = tmp_path / "scores.json"
    arguments = ["--benchmark", "arc_easy", "--limit", 2, "--datasets-root", to, "--out", scores, "--device", "cpu"]
    ran = command("evaluate", tiny_checkpoint("llama"), *arguments)
    assert ran.code == 0, ran
    assert ran.err == "", "nothing but our own lines on the terminal"
    assert {row["metric"] for row in json.loads(scores.read_text())} == {"acc", "acc_norm"}


def test_what_cannot_be_fetched_is_said_in_one_line(
    hub: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(hub / "openai")
    ran = command("fetch", "--benchmark", "gsm8k", "--to", tmp_path / "data")
    assert ran.code == 2
    assert "openai/gsm8k cannot be downloaded from the hub (openai/gsm8k cannot be reached)" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert command("fetch", "--to", tmp_path / "data").code == 2
    assert "did you mean 'paper'" in command("fetch", "--suite", "papre", "--to", tmp_path / "data").err

    (hub / "aps/super_glue/boolq/validation.jsonl").unlink()
    with pytest.raises(DataError, match=r"aps/super_glue \(boolq\)"):
        list(fetch_sources(benchmarks["boolq"].sources(), tmp_path / "data"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(DiskFull, match="no space left while downloading aps/super_glue"):
        list(fetch_sources(benchmarks["boolq"].sources(), tmp_path / "data"))


@pytest.mark.parametrize(
    ("readme", "config", "patterns"),
    [
        ("", "main", ["main/*"]),
        ("", None, ["*"]),
        ("configs:\n- config_name: main\n  data_files: a.csv\n", "main", ["a.csv"]),
        ("configs:\n- config_name: main\n  data_files: [a.csv, b.csv]\n", "main", ["a.csv", "b.csv"]),
        ("configs:\n- config_name: default\n  data_files:\n  - {split: t, path: [x, y]}\n", None, ["x", "y"]),
        ("configs:\n- config_name: other\n  data_files: a.csv\n", "main", ["main/*"]),
    ],
)
def test_the_files_of_a_configuration(readme: str, config: str | None, patterns: list[str], tmp_path: Path) -> None:
    if readme:
        (tmp_path / "README.md").write_text(f"---\n{readme}---\ntext\n")
    assert Source("owner/data", config).files(tmp_path) == patterns


def test_one_file_of_a_large_repository(tmp_path: Path) -> None:
    assert Source("allenai/c4", "en", "en/part.json.gz").files(tmp_path) == ["en/part.json.gz"]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("gone.txt", None, "does not exist"),
        ("empty.txt", b" \n", "contains no text"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("bad.jsonl", b'{"text": "a"}\n{"txet": "b"}\n', "line 2, is not"),
    ],
)
def test_files_that_hold_no_documents(name: str, content: bytes | None, text: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_documents(tmp_path / name)


def test_documents_of_both_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\\u2028still one"}\n\n{"text": "two"}\n')
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>\ntwo\n")
    assert read_documents(tmp_path / "a.jsonl") == ["one\u2028still one", "two"]
    assert read_documents(tmp_path / "a.txt") == ["one", "two"]
