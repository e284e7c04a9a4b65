"""Data sets' files that a library would crash on, or end in a traceback on, are refused by file and line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prunelab.errors import DataError
from prunelab.io.datasets import Source
from prunelab.models.vision.images import UnusableImage, file_picture, open_picture, row_picture

SOURCE = Source("owner/data", "main")
GOOD = b'{"text": "a"}\n'
DEEP = b'{"text": ' + b"[" * 20_000 + b"]" * 20_000 + b"}\n"


def written(root: Path, content: bytes, name: str = "test.jsonl", readme: str | None = None) -> Path:
    folder = root / "owner/data"
    (folder / "main").mkdir(parents=True)
    (folder / "main" / name).write_bytes(content)
    entry = f"configs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/{name}\n"
    (folder / "README.md").write_text(f"---\n{entry if readme is None else readme}---\n")
    return root


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"null\n" + GOOD, 1),
        (b"null\n", 1),
        (b"\n\n  null\n", 3),
        (GOOD * 4 + b"\n null \n", 6),
        (b"\xef\xbb\xbfnull\n", 1),
        (DEEP, 1),
        (GOOD * 2 + DEEP, 3),
        (b'{"text":\n' + b"[\n" * 20_000, 65),
    ],
)
@pytest.mark.parametrize("name", ["test.jsonl", "test.json"])
def test_rows_that_end_the_process_are_refused(content: bytes, line: int, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"main/{name}, line {line}\b"):
        SOURCE.load("test", written(tmp_path, content, name))


@pytest.mark.parametrize("content", [b"[null, {}]", b"[\n null]", b'[{"text": "a"}, null]', b"[[], {}]", b"[1]"])
def test_items_of_a_list_that_are_no_objects_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"main/test\.json: item \d of the list is not an object"):
        SOURCE.load("test", written(tmp_path, content, "test.json"))


@pytest.mark.parametrize(("suffix", "packed"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files_are_looked_into(suffix: str, packed: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"test\.jsonl\.{suffix}, line 1, is null"):
        SOURCE.load("test", written(tmp_path, packed(b"null\n" + GOOD), f"test.jsonl.{suffix}"))


@pytest.mark.parametrize("name", ["test.jsonl", "test.parquet", "test.csv"])
def test_files_without_an_end_are_refused(name: str, tmp_path: Path) -> None:
    root = written(tmp_path, GOOD, name)
    (root / "owner/data/main" / name).unlink()
    os.mkfifo(root / "owner/data/main" / name)
    with pytest.raises(DataError, match=rf"{name} is not a regular file"):
        SOURCE.load("test", root)


def test_files_of_other_configurations_do_not_matter(tmp_path: Path) -> None:
    root = written(tmp_path, GOOD)
    (root / "owner/data/other").mkdir()
    (root / "owner/data/other/test.jsonl").write_bytes(b"null\n")
    assert SOURCE.load("test", root)["text"] == ["a"]


def test_brackets_inside_of_texts_are_no_nesting(tmp_path: Path) -> None:
    rows = b'{"text": "' + b"[{" * 500 + b'"}\n' + b'{"text": "\\"[[' + b"[" * 80 + b'"}\n'
    assert len(SOURCE.load("test", written(tmp_path, rows))) == 2


def test_a_file_that_changed_is_looked_at_again(tmp_path: Path) -> None:
    root = written(tmp_path, GOOD)
    assert len(SOURCE.load("test", root)) == 1
    (root / "owner/data/main/test.jsonl").write_bytes(b"null\n")
    with pytest.raises(DataError, match="is null"):
        SOURCE.load("test", root)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"{",
        b'{"text": "\\ud800"}',
        b"1\n2\n",
        b'{"a": 1, "a": 2}',
        b'{"text": "a\x00"}',
        b"",
        b"\n",
        b"[]",
        b'"a"',
    ],
)
def test_damaged_rows_are_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        SOURCE.load("test", written(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "readme",
    [
        "configs: 5\n", "configs: [5]\n", "configs: [{}]\n", "a: [\n",
        "configs:\n- config_name: main\n  data_files: 5\n", "- a\n",
        "configs:\n- config_name: main\n  data_files: [{split: test}]\n",
        "configs:\n- config_name: main\n  data_files: [{path: x}]\n",
        "dataset_info: 7\n", "dataset_info:\n  config_name: main\n  features: 9\n", "configs: null\n", "&a [*a]\n",
        "dataset_info:\n  config_name: main\n  features:\n  - name: text\n    dtype: nonsense\n",
        "!!python/object:os.system x\n",
    ],
)  # fmt: skip
def test_a_damaged_readme_is_one_line_or_does_not_matter(readme: str, tmp_path: Path) -> None:
    root = written(tmp_path, GOOD, readme=readme)
    refusals = []
    for ask in (lambda: SOURCE.load("test", root), lambda: SOURCE.splits(root), lambda: SOURCE.load_splits(root)):
        try:
            ask()
        except DataError as error:
            refusals.append(str(error))
    assert not any("\n" in refusal for refusal in refusals)


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "folder", "gone", "a\0b"])
def test_images_that_are_no_files_are_missing(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for picture in (
        file_picture(tmp_path / path),
        row_picture("x", lambda: {"bytes": None, "path": str(tmp_path / path)}),
    ):
        with pytest.raises(UnusableImage, match="missing"):
            open_picture(picture)
