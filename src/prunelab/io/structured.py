"""Read external JSON and YAML within limits.

Every error is one line with the file, the line if it is known, and the remedy. Both formats refuse repeated keys, deep
nesting, too many values, long numbers, lone surrogates, empty texts, bytes that are not UTF-8, and, unless allowed, NaN
and infinity. YAML uses the core schema of YAML 1.2 (dates, `yes` and `no` are strings) without tags; the target of an
alias counts each time it is used. Keys must be strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelab.errors import DataError, PrunelabError
from prunelab.errors.text import one_line
from prunelab.io import json_text, yaml_text
from prunelab.io.limits import JSON, YAML, Limits, Malformed
from prunelab.io.reading import decoded, read_bytes, read_text

__all__ = [
    "JSON",
    "YAML",
    "Limits",
    "parse_json",
    "parse_json_object",
    "parse_yaml",
    "parse_yaml_mapping",
    "read_json",
    "read_json_lines",
    "read_json_object",
    "read_yaml",
    "read_yaml_mapping",
]


def parse_json(
    text: str | bytes,
    *,
    source: str,
    error: type[PrunelabError] = DataError,
    line: int = 1,
    nonfinite: bool = False,
    limits: Limits = JSON,
    remedy: str = "fix it",
) -> Any:
    """Parse a JSON text.

    Args:
        text: JSON; bytes are decoded as UTF-8.
        source: name for messages, such as its path.
        error: class of the errors raised.
        line: line of the source on which the text begins, for rows of a JSONL file.
        nonfinite: allow NaN, Infinity and -Infinity, as written by Python's `json`.
        limits: limits on size, depth, number of values and length of numbers.
        remedy: what the user can do, at the end of every message.

    Raises:
        PrunelabError: of class `error`, on one line.
    """
    return _parsed(_Reading("JSON", source, error, line, nonfinite, limits, remedy), text)


def parse_yaml(
    text: str | bytes,
    *,
    source: str,
    error: type[PrunelabError] = DataError,
    line: int = 1,
    nonfinite: bool = False,
    limits: Limits = YAML,
    remedy: str = "fix it",
) -> Any:
    """Parse a YAML text of one document; arguments and errors as in `parse_json`."""
    return _parsed(_Reading("YAML", source, error, line, nonfinite, limits, remedy), text)


def parse_json_object(text: str | bytes, *, source: str, **options: Any) -> dict[str, Any]:
    """As `parse_json`, but only accept an object."""
    return _mapping(parse_json(text, source=source, **options), "a JSON object", source, options)


def parse_yaml_mapping(text: str | bytes, *, source: str, **options: Any) -> dict[str, Any]:
    """As `parse_yaml`, but only accept a mapping."""
    return _mapping(parse_yaml(text, source=source, **options), "a mapping of keys", source, options)


def read_json(
    path: Path | str,
    *,
    error: type[PrunelabError] = DataError,
    nonfinite: bool = False,
    limits: Limits = JSON,
    remedy: str = "fix it",
) -> Any:
    """Read a regular JSON file; arguments and errors as in `parse_json`."""
    text = read_text(path, error=error, limit=limits.size, remedy=remedy)
    return parse_json(text, source=str(path), error=error, nonfinite=nonfinite, limits=limits, remedy=remedy)


def read_yaml(
    path: Path | str,
    *,
    error: type[PrunelabError] = DataError,
    nonfinite: bool = False,
    limits: Limits = YAML,
    remedy: str = "fix it",
) -> Any:
    """Read a regular YAML file; arguments and errors as in `parse_json`."""
    text = read_text(path, error=error, limit=limits.size, remedy=remedy)
    return parse_yaml(text, source=str(path), error=error, nonfinite=nonfinite, limits=limits, remedy=remedy)


def read_json_object(path: Path | str, **options: Any) -> dict[str, Any]:
    """As `read_json`, but only accept an object."""
    return _mapping(read_json(path, **options), "a JSON object", str(path), options)


def read_yaml_mapping(path: Path | str, **options: Any) -> dict[str, Any]:
    """As `read_yaml`, but only accept a mapping."""
    return _mapping(read_yaml(path, **options), "a mapping of keys", str(path), options)


def read_json_lines(
    path: Path | str,
    *,
    error: type[PrunelabError] = DataError,
    nonfinite: bool = False,
    limits: Limits = JSON,
    file_size: int = 1 << 32,
    remedy: str = "fix it",
) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a JSONL file with their line numbers, from 1; blank lines are skipped.

    Args:
        path: the file.
        error: class of the errors raised.
        nonfinite: allow NaN and infinity.
        limits: limits of each line.
        file_size: maximum size of the file in bytes.
        remedy: what the user can do, at the end of every message.

    Raises:
        PrunelabError: of class `error`, with the line.
    """
    content = read_bytes(path, error=error, limit=file_size, remedy=remedy)
    source, start, number = str(path), 0, 0
    while start < len(content):
        # Not splitlines(), which also splits at separators that JSON strings may contain.
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        row, start, number = content[start:end], end + 1, number + 1
        if row.strip():
            yield (
                number,
                parse_json(
                    row, source=source, error=error, line=number, nonfinite=nonfinite, limits=limits, remedy=remedy
                ),
            )


@dataclass(frozen=True)
class _Reading:
    language: str
    source: str
    error: type[PrunelabError]
    line: int
    nonfinite: bool
    limits: Limits
    remedy: str


def _parsed(reading: _Reading, text: str | bytes) -> Any:
    source = one_line(reading.source)
    if isinstance(text, bytes):
        text = decoded(text, source=source, error=reading.error, line=reading.line)
    if len(text) > reading.limits.size:
        raise reading.error(
            f"{source} has {len(text):,} characters, more than the {reading.limits.size:,} allowed: {reading.remedy}"
        )
    if not text.strip():
        raise reading.error(f"{source} is empty, but {reading.language} is expected: {reading.remedy}")
    load = json_text.load if reading.language == "JSON" else yaml_text.load
    try:
        return load(text, reading.limits, reading.nonfinite)
    except Malformed as problem:
        where = "" if problem.line is None else f", line {problem.line + reading.line - 1}"
        reason = one_line(problem, 300)
        raise reading.error(f"{source}{where}: {reason}: {reading.remedy}") from problem


def _mapping(value: Any, expected: str, source: str, options: dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    error: type[PrunelabError] = options.get("error", DataError)
    kinds = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    kind = kinds.get(type(value), "null")
    line = f", line {options['line']}" if "line" in options else ""
    raise error(f"{one_line(source)}{line} holds {kind}, not {expected}: {options.get('remedy', 'fix it')}")
