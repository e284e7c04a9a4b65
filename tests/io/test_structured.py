"""JSON and YAML from outside: what is read, and what is refused in one line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunelab.errors import CheckpointError, DataError, PrunelabError
from prunelab.io.limits import Limits
from prunelab.io.structured import (
    parse_json,
    parse_json_object,
    parse_yaml,
    read_json,
    read_json_lines,
    read_json_object,
    read_yaml,
    read_yaml_mapping,
)
from prunelab.io.yaml_text import dump

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
VALUES = st.recursive(SCALARS | TEXTS, lambda of: st.lists(of, max_size=4) | st.dictionaries(TEXTS, of, max_size=4))


@given(VALUES)
def test_json_that_python_writes_is_read_as_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value), source="x") == value
    assert parse_json(json.dumps(value, indent=1, ensure_ascii=False), source="x") == value


@given(VALUES)
def test_yaml_that_we_write_is_read_as_it_was(value: Any) -> None:
    assert parse_yaml(dump(value), source="x") == value


@pytest.mark.parametrize("text", ["1e-3", "no", "0o7", "2024-13-45", "1:30", "010", "~", "<<", "=", "null", ".inf"])
def test_texts_that_look_like_something_else_survive_yaml(text: str) -> None:
    assert parse_yaml(dump({text: [text]}), source="x") == {text: [text]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2024-13-45", "2024-13-45"),
        ("a: 2024-01-02 03:04:05", "2024-01-02 03:04:05"),
        ("a: 010", 10),
        ("a: 1e-3", 0.001),
        ("a: 12:30:45", "12:30:45"),
        ("a: no", "no"),
        ("a: 1_000", "1_000"),
        ("a: 0x1F", 31),
        ("a:", None),
        ("a: TRUE", True),
    ],
)
def test_plain_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    assert parse_yaml(text, source="x") == {"a": value}


BAD_JSON = [
    ("", "empty"),
    (" \n\t", "empty"),
    ('{"a": 1,\n "b": 2,\n "a": 3}', "line 3: key 'a' is repeated (first on line 1)"),
    ('[{"a": {"b": 1}},\n {"c": {"b": [1, {"x": 1}], "d": ",",\n"b": 0}}]', "line 3: key 'b' is repeated"),
    ('{"a": 1, "\\u0061": 2}', "key 'a' is repeated"),
    ("[" * 100_000, "nested deeper"),
    ("[" * 100_000 + "]" * 100_000, "nested deeper"),
    ('{"a":' * 500 + "1" + "}" * 500, "nested deeper"),
    ('["a",\n' + "9" * 5000 + "]", "line 2: a number of 5,000 characters"),
    ("[1." + "0" * 5000 + "]", "a number of 5,002 characters"),
    ('{"a":\n 1e999}', "line 2: 1e999 is larger"),
    ("[NaN]", "NaN is not JSON"),
    ("[1,\n-Infinity]", "line 2: -Infinity is not JSON"),
    ('["a",\n"\\ud800"]', "line 2"),
    ('{"\\uDC00": 1}', "lone surrogate"),
    ("{'a': 1}", "not JSON"),
    ('{"a": 1', "line 1: not JSON"),
    ('["' + '\\"' * 100_000, "not JSON"),
    ("[" + "[]," * 3_000_000 + "[]]", "values, more than"),
]


@pytest.mark.parametrize(("text", "said"), BAD_JSON, ids=range(len(BAD_JSON)))
def test_json_out_of_bounds_is_refused_in_one_line(text: str, said: str) -> None:
    _refused_quickly(lambda: parse_json(text, source="c.json", error=CheckpointError), said)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{new}: &{new}\n  <<: [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_YAML = [
    ("", "empty"),
    ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is repeated (first on line 1)"),
    ("x:\n  - {q: 1, 'q': 2}\n", "line 2: key 'q' is repeated"),
    (BOMB, "counting the target of an alias"),
    (MERGES, "counting the target of an alias"),
    ("a: &a [*a]", "refers to a value that contains it"),
    ("a: *b", "undefined alias"),
    ("[" * 5000, "nested deeper"),
    ("- " * 5000 + "x", "nested deeper"),
    ("a: !!python/object/apply:os.system [ls]", "tag"),
    ("a: !mine 3", "tag !mine is not allowed"),
    ("a: !!binary aGk=", "!!binary is not allowed"),
    ("a: !!timestamp 2024-01-01", "!!timestamp is not allowed"),
    ("a: !!int x", "invalid literal"),
    ("1: a", "'1' is not a string"),
    ("null: a", "is not a string"),
    ("true: a", "is not a string"),
    ("[1, 2]: a", "is not a string"),
    ("{a: 1}: a", "is not a string"),
    ("a: " + "1" * 5000, "a number of 5,000 characters"),
    ("a: 1e999", "larger than any"),
    ("a: .nan", "not a finite number"),
    ("b: 1\na: -.INF", "line 2: -.inf is not a finite"),
    ('a: "\\ud800"', "surrogate"),
    ('a: "\\UFFFFFFFF"', "not YAML"),
    ("a: 1\n--- \nb: 2", "document"),
    ("a: [1", "line 1: not YAML"),
    ("a: b: c", "not YAML"),
    ("a: \x07", "line 1: not YAML: character U+0007"),
    ("\t- a", "not YAML"),
    ("a: 1\n<<: 3", "mapping"),
    ("x" * 300_000, "more than"),
]


@pytest.mark.parametrize(("text", "said"), BAD_YAML, ids=range(len(BAD_YAML)))
def test_yaml_out_of_bounds_is_refused_in_one_line(text: str, said: str) -> None:
    _refused_quickly(lambda: parse_yaml(text, source="c.yaml", error=CheckpointError), said)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=10_000)
@given(st.text(st.sampled_from('{}[]":,\\ud8-1eE.0 \nabc&*!|>?%@<~#'), max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(text, source="x", error=CheckpointError)
        except CheckpointError as error:
            lines = str(error).splitlines()
            if len(lines) != 1:
                raise AssertionError(lines) from error


def test_python_s_words_for_what_is_not_finite_are_read_where_they_are_allowed() -> None:
    assert parse_json("[Infinity, -Infinity]", source="x", nonfinite=True) == [float("inf"), float("-inf")]
    assert parse_yaml("a: -.inf", source="x", nonfinite=True) == {"a": float("-inf")}
    with pytest.raises(DataError, match="larger than any"):
        parse_json("1e999", source="x", nonfinite=True)


def test_merge_keys_may_be_overridden() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}", source="x")["b"] == {"x": 3, "y": 2}


def test_lines_are_those_of_the_source() -> None:
    with pytest.raises(DataError, match=r"^rows\.jsonl, line 7: key 'a' is repeated"):
        parse_json('{"a": 1, "a": 1}', source="rows.jsonl", line=7)
    with pytest.raises(DataError, match=r"^rows\.jsonl, line 8: byte 0xff is not UTF-8"):
        parse_json(b'{"a":\n"\xff"}', source="rows.jsonl", line=7)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"a"', "true", "1.5"])
def test_what_is_no_object_is_refused_where_one_is_expected(text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a JSON object: fetch it again"):
        parse_json_object(text, source="x", error=CheckpointError, remedy="fetch it again")
    (tmp_path / "x").write_text(text)
    with pytest.raises(DataError, match="not a JSON object"):
        read_json_object(tmp_path / "x")
    with pytest.raises(DataError, match="not a mapping of keys"):
        read_yaml_mapping(tmp_path / "x")


def test_files_that_are_no_regular_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("{}")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "utf16.json").write_bytes('{"a": 1}'.encode("utf-16"))
    places: list[tuple[Path | str, str]] = [
        (tmp_path / "fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (tmp_path, "a folder"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "file" / "x", "cannot be read"),
        (tmp_path / "loop", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
        ("a\0b", "not a valid path"),
        ("a\ud800b", "not a valid path"),
        (tmp_path / "latin.json", "0xe9 is not UTF-8"),
        (tmp_path / "utf16.json", "0xff is not UTF-8"),
    ]
    for place, said in places:
        for read in (read_json, read_yaml):
            _refused_quickly(lambda place=place, read=read: read(place, error=CheckpointError), said)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 40)
    _refused_quickly(lambda: read_json(tmp_path / "large.json", error=CheckpointError), "1,099,511,627,776 bytes")
    (tmp_path / "small.json").write_text("[1, 2, 3, 4]")
    with pytest.raises(DataError, match="values, more than 3"):
        read_json(tmp_path / "small.json", limits=Limits(size=100, values=3))


def test_rows_of_jsonl_have_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"a": "\u2028"}\r\n\n  \n[1]'.encode())
    assert list(read_json_lines(path)) == [(1, {"a": "\u2028"}), (4, [1])]
    path.write_bytes(b'{"a": 1}\n\n{"a":}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: not JSON"):
        list(read_json_lines(path))


def _refused_quickly(read: Any, said: str) -> None:
    start = time.process_time()
    with pytest.raises(PrunelabError) as caught:
        read()
    assert isinstance(caught.value, CheckpointError)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
    assert time.process_time() - start < 8
