"""A user's text files: plain text, JSON lines, or a JSON list.

A file whose name ends in `.jsonl`, `.ndjson` or `.json`, in any case, is JSON: one value per line, or one list. Any
other file is plain text; if it begins like JSON it is refused, because its quotes and escapes would be read as text,
unless it begins with the document mark. All files must be regular UTF-8 files without NUL characters.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prunelab.errors import DataError
from prunelab.errors.text import one_line
from prunelab.io.limits import Limits
from prunelab.io.reading import read_text
from prunelab.io.structured import parse_json

DOCUMENT_MARK = "<|endoftext|>"
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
LARGEST = 1 << 30
"""Maximum size of a file in bytes."""

_LIMITS = Limits(size=LARGEST, values=20_000_000)
_BLANK = " \t\r\n"
_BEGINS_LIKE_ROWS = re.compile(r'(?:\[\s*)*\{\s*"(?:[^"\\\n]|\\.){0,200}"\s*:|(?:\[\s*)+"(?:[^"\\\n]|\\.){0,200}"\s*,')
_LINES_TRIED = 5
"""Number of first lines that must all be JSON if the first one only holds numbers."""

_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Row:
    """One value of a JSON file.

    Attributes:
        value: the value.
        where: file and first line of the value, for messages.
    """

    value: Any
    where: str


def is_json_name(path: Path) -> bool:
    """Whether a file is JSON by its name."""
    return path.suffix.lower() in JSON_SUFFIXES


def read_documents(path: Path) -> list[str]:
    """Read the documents of a user's file; blank documents are left out.

    A row of JSON is one document: an object with a `text` field, or a string. In plain text, `<|endoftext|>` separates
    documents; a plain text that begins with this mark may look like JSON.

    Raises:
        DataError: with file and line, if the file is missing, not a regular file, empty, not UTF-8, or holds a NUL; if
            a row is not JSON or holds no text; or if plain text begins like JSON.
    """
    if is_json_name(path):
        documents = [_document(row) for row in read_rows(path)]
    else:
        text = _text_of(path)
        _refuse_json(path, text)
        documents = [part.strip("\n") for part in text.split(DOCUMENT_MARK)]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError(f"{one_line(path)} contains no text: give a file with at least one document")
    return documents


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines of a user's file with their numbers, from 1.

    Raises:
        DataError: the file is missing, not a regular file, not UTF-8, or holds a NUL.
    """
    # Not splitlines(), which also splits at separators that JSON strings may contain.
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the values of a JSON file: the items of one list, or one value per line.

    Raises:
        DataError: the file is missing, not a regular file or not UTF-8, or a value is not JSON; with its line.
    """
    text = _text_of(path)
    start = len(text) - len(text.lstrip(_BLANK))
    if text.startswith("[", start) and not _is_line_of_lists(text, start):
        yield from _list_rows(path, text)
        return
    if text.startswith("{", start) and not _is_json(_line_at(text, start)) and _is_json(text):
        yield Row(_parsed(path, text, 1), f"{one_line(path)}, line {text.count(chr(10), 0, start) + 1}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(_BLANK):
            yield Row(_parsed(path, line, number), f"{one_line(path)}, line {number}")


def _list_rows(path: Path, text: str) -> Iterator[Row]:
    values = _parsed(path, text, 1)
    for value, line in zip(values, _lines_of_items(text), strict=True):
        yield Row(value, f"{one_line(path)}, line {line}")


def _lines_of_items(text: str) -> Iterator[int]:
    """Yield the line on which each item of a list begins; the text is valid JSON."""
    at, line, seen = text.index("[") + 1, 1, 0
    while True:
        while text[at] in _BLANK or text[at] == ",":
            at += 1
        if text[at] == "]":
            return
        line, seen = line + text.count("\n", seen, at), at
        yield line
        at = _DECODER.raw_decode(text, at)[1]


def _is_line_of_lists(text: str, start: int) -> bool:
    """Whether the file holds one list per line: a list ends on the first line, and another value follows."""
    rest = text[start:].partition("\n")[2]
    return bool(rest.strip(_BLANK)) and _is_json(_line_at(text, start))


def _line_at(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start:] if end < 0 else text[start:end]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(path: Path, text: str, line: int) -> Any:
    remedy = "give one JSON object per line, or one list of objects"
    return parse_json(text, source=str(path), line=line, nonfinite=True, limits=_LIMITS, remedy=remedy)


def _document(row: Row) -> str:
    text = row.value.get("text") if isinstance(row.value, dict) else row.value
    if not isinstance(text, str):
        raise DataError(f'{row.where}, is not {{"text": "..."}}: give one such object per line, or a list of them')
    return text


def _text_of(path: Path) -> str:
    text = read_text(path, limit=LARGEST, remedy="give a text or JSONL file")
    if "\r" in text:  # line ends of Windows and classic Mac OS
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{one_line(path)}, line {line}, contains a NUL character: give a text file")
    return text


def _refuse_json(path: Path, text: str) -> None:
    if _begins_like_json(text.lstrip()):
        line = text.count("\n", 0, len(text) - len(text.lstrip())) + 1
        raise DataError(
            f"{one_line(path)}, line {line}, begins like JSON, but the file's name is that of plain text: rename it to "
            f"{one_line(path.stem)}.jsonl, or, if it is plain text, insert {DOCUMENT_MARK} as the first line"
        )


def _begins_like_json(text: str) -> bool:
    """Whether plain text begins with a JSON object or list, complete or not."""
    if not text.startswith(("{", "[")):
        return False
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return _BEGINS_LIKE_ROWS.match(text) is not None
    if text[end:].strip() == "":
        return True
    line_end = text.find("\n", end)
    rest = text[end : len(text) if line_end < 0 else line_end].strip()
    if isinstance(value, dict):
        return bool(value) and (rest in ("", ",") or rest.lstrip(", ").startswith("{"))
    if rest:  # such as a footnote mark, followed by the note
        return False
    lines = islice(filter(str.strip, io.StringIO(text)), _LINES_TRIED)
    return all(isinstance(item, dict | str | list) for item in value) or all(map(_is_json, lines))
