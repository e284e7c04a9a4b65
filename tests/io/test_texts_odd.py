"""Texts of a user's own, in every kind of file that users have: read as what they are, or refused by file and line."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prunelab.calibration import is_pairs
from prunelab.errors import DataError
from prunelab.io.datasets import DOCUMENT_MARK, read_documents, read_lines
from prunelab.io.documents import read_rows

REUSED_FOLDER = [HealthCheck.function_scoped_fixture]
JSON_NAMES = ("a.jsonl", "a.JSONL", "a.ndjson", "a.NDJson", "a.json", "a.Json")
TEXT_NAMES = ("a.txt", "a.md", "a.text", "a", "a.jsonl.bak", "a.csv")
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=6)


def lines_of(texts: list[str], ascii_only: bool) -> str:
    return "\n".join(json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts)


WRITINGS: tuple[Callable[[list[str]], str], ...] = (
    lambda texts: lines_of(texts, ascii_only=True),
    lambda texts: lines_of(texts, ascii_only=False) + "\n",
    lambda texts: "\n\n" + lines_of(texts, ascii_only=True).replace("\n", "\n \n"),
    lambda texts: lines_of(texts, ascii_only=True).replace("\n", "\r\n"),
    lambda texts: json.dumps([{"text": text} for text in texts]),
    lambda texts: json.dumps([{"id": i, "text": text, "x": [{}]} for i, text in enumerate(texts)], indent=1),
    lambda texts: "\ufeff" + json.dumps([{"text": text} for text in texts], indent=4, ensure_ascii=False),
    lambda texts: json.dumps(texts),
    lambda texts: "[\n" + ",\n".join(json.dumps({"text": text}) for text in texts) + "\n]\n",
)


@given(texts=TEXTS, name=st.sampled_from(JSON_NAMES), writing=st.sampled_from(WRITINGS))
@example(texts=["a\u2028b\x85c", "[1]", '{"text": "x"}'], name="a.json", writing=WRITINGS[1])
@settings(max_examples=40, deadline=None, suppress_health_check=REUSED_FOLDER)
def test_json_is_read_as_what_it_is(
    texts: list[str], name: str, writing: Callable[[list[str]], str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(writing(texts), encoding="utf-8", newline="")
    assert read_documents(path) == texts


@pytest.mark.parametrize("name", JSON_NAMES)
def test_one_object_over_several_lines_is_one_document(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({"text": "one", "more": {"a": 1}}, indent=2))
    assert read_documents(path) == ["one"]


@given(texts=TEXTS, name=st.sampled_from(TEXT_NAMES), writing=st.sampled_from(WRITINGS))
@settings(max_examples=40, deadline=None, suppress_health_check=REUSED_FOLDER)
def test_json_under_another_name_is_refused_and_the_mark_forces_it(
    texts: list[str], name: str, writing: Callable[[list[str]], str], tmp_path: Path
) -> None:
    path, content = tmp_path / name, writing(texts)
    path.write_text(content, encoding="utf-8", newline="")
    with pytest.raises(
        DataError, match=rf"line \d+, begins like JSON.*rename it to .*\.jsonl.*{re.escape(DOCUMENT_MARK)}"
    ):
        read_documents(path)
    path.write_text(f"{DOCUMENT_MARK}\n{content}", encoding="utf-8", newline="")
    assert read_documents(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "cut off', '[\n {\n  "text": "cut', '{"text": "a"}\n{"text": ', '{"a": nothing}\n',
        "[1, 2, 3]\n[4, 5]\n",
        '{"text": "a"}{"text": "b"}', '{"text": "a"},\n{"text": "b"},\n', '["a", "b"', "[]", "{}", '[[1], ["a"]]',
        "\n\n [1,\n2]\n", "[" + ", ".join(map(str, range(9000))) + "]\n" + "[7]\n" * 9,
    ],
)  # fmt: skip
def test_what_begins_like_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match="begins like JSON"):
        read_documents(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "content",
    [
        "[Verse 1]\nHello", "[1] Knuth, The Art.\n[2] Other", "[1]\nThe note to it.", "{curly} brackets", "{",
        "[[Category:X]]",
        "['python', 'list']\nmore", "{'a': 1}\nmore", '{"a": 1} is an object, said Ann.', "[a, b] = f(x)",
        "[" * 100_000,
        '{"a": 1} and {"b": 2}', "{}\nint main() {}", '"Hello," said Ann.', "12\n13", "null and void", "{%% if x %%}",
        "[ ] to do",
        '["a", "b"] are two names', "[0, 1) is half open", "{" * 5000, "[1, 2]\n\nis a pair", '{"unclosed',
    ],
)  # fmt: skip
def test_text_that_is_no_json_may_begin_with_a_bracket(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert read_documents(tmp_path / "a.txt") == [content]


BAD_ROWS = (
    b"null", b"1", b"true", b"[]", b"{}", b'{"text": null}', b'{"text": 5}', b'{"text": ["a"]}', b'{"txet": "a"}',
    b'{"text": ',
    b'{"text": "\\ud800"}', b'{"text": "a\\udc00b"}', b'{"text": "\\ude00\\ud83d"}', b"\xff\xfe",
    b'{"text": "caf\xe9"}',
    b'{"text": "\xed\xa0\x80"}', b'{"text": "a\x00b"}', b'{"text": "a", "text": "b"}', b'{"a": ' + b"[" * 5000,
    b'{"text": "a", "n": ' + b"9" * 500 + b"}", b'{"a": 1e999, "text": "a"}', b'"half \\ud9ff"', b'{"text": "a"} x',
)  # fmt: skip


@given(row=st.sampled_from(BAD_ROWS), before=st.integers(0, 4), gap=st.booleans(), name=st.sampled_from(JSON_NAMES))
@settings(max_examples=60, deadline=None, suppress_health_check=REUSED_FOLDER)
def test_a_bad_row_is_refused_by_file_and_line(row: bytes, before: int, gap: bool, name: str, tmp_path: Path) -> None:
    good = b'{"text": "a"}\n' + b"\n" * gap
    if row.startswith((b"{", b"[")) and not before:
        before = 1
    path = tmp_path / name
    path.write_bytes(good * before + row + b"\n" + b'{"text": "b"}\n' * 2)
    with pytest.raises(DataError) as caught:
        read_documents(path)
    message = str(caught.value)
    assert f"{path}, line {before * (1 + gap) + 1}" in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("bad", ['{"text": 5}', "null", "[]", "7"])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_bad_item_of_a_list_is_refused_by_its_line(bad: str, indent: int | None, tmp_path: Path) -> None:
    items = [{"text": "a, [b]\nc"}, {"text": "}"}, json.loads(bad), {"text": "d"}]
    content = json.dumps(items, indent=indent)
    (tmp_path / "a.json").write_text(content)
    expected = 1 if indent is None else 8
    with pytest.raises(DataError, match=rf"a\.json, line {expected}, is not"):
        read_documents(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"caf\xe9", 1),
        (b"a\n\nb\xff", 3),
        (b"\xed\xa0\x80", 1),
        (b"\xff\xfea\x00", 1),
        (b"a\nb\x00c", 2),
        (b"\x1f\x8b\x08", 1),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_bytes_that_are_no_text_are_refused_by_line(content: bytes, line: int, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(name)}, line {line}\b"):
        read_documents(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n", b"\xef\xbb\xbf", b"<|endoftext|>\n<|endoftext|>\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.ndjson"])
def test_empty_files_are_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(name)}.*contains no text|{re.escape(name)}, line 1"):
        read_documents(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["fifo.jsonl", "fifo.txt", "/dev/zero", "/dev/tty", "folder", "a\0b.jsonl", "x" * 300, "loop", "gone"]
)
def test_what_is_no_regular_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jsonl")
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    start = time.monotonic()
    with pytest.raises(DataError):
        read_documents(tmp_path / name)
    with pytest.raises(DataError):
        list(read_lines(tmp_path / name))
    assert not is_pairs(str(tmp_path / name))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("ascii_only", [True, False])
def test_lines_of_ten_megabytes_are_read(ascii_only: bool, tmp_path: Path) -> None:
    text = "\U0001f600 one \u00e9 " + "and so on, " * 950_000
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of([text, "b"], ascii_only), encoding="utf-8")
    assert path.stat().st_size > 10_000_000
    assert read_documents(path) == [text, "b"]
    with path.open("a") as file:
        file.write('\n{"text": ' + "[" * 10_000_000)
    with pytest.raises(DataError, match="line 3") as caught:
        read_documents(path)
    assert len(str(caught.value)) < 400


def test_line_ends_of_other_systems_are_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r<|endoftext|>\r\nthree")
    assert read_documents(tmp_path / "a.txt") == ["one\ntwo", "three"]
    assert list(read_lines(tmp_path / "a.txt")) == [(1, "one"), (2, "two"), (3, "<|endoftext|>"), (4, "three")]


@pytest.mark.parametrize("name", ["p.jsonl", "p.JSONL", "p.ndjson", "p.json"])
@pytest.mark.parametrize("as_list", [False, True])
def test_pairs_are_known_under_every_name(name: str, as_list: bool, tmp_path: Path) -> None:
    rows = [{"image": f"{i}.png", "question": "q", "answer": "a"} for i in range(3)]
    (tmp_path / name).write_text(json.dumps(rows, indent=1) if as_list else "\n".join(map(json.dumps, rows)))
    assert is_pairs(str(tmp_path / name))
    assert [row.value for row in read_rows(tmp_path / name)] == rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b'{"text": "a"}\n{"text": "b"}\n'),
        ("a.JSONL", b'{"text": "a"}\nnull\n'),
        ("a.ndjson", b'{"text": "\\ud800"}\n'),
        ("a.json", b'[{"text": "a"}, {"text": 5}]'),
        ("a.jsonl", b"\xff"),
        ("a.text", b"a\0"),
    ],
)
def test_commands_refuse_them_in_one_line(
    name: str, content: bytes, tmp_path: Path, command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    arguments: tuple[tuple[Any, ...], ...] = (
        ("evaluate", tiny_checkpoint("llama"), "--benchmark", f"text:{path}"),
        (
            "prune",
            tiny_checkpoint("llama"),
            "--method",
            "flap",
            "--ratio",
            0.2,
            "--calibration",
            path,
            "--out",
            tmp_path / "o",
        ),
    )
    for given_arguments in arguments:
        ran = command(*given_arguments)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1), ran
        assert f"{path}, line " in ran.err
