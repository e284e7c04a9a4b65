"""JSON parsing within limits, on top of Python's `json`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from prunelab.io.limits import Limits, Malformed

# The closing quote is optional, so that the pattern never backtracks and takes linear time.
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_TOKEN = re.compile(rf"{_STRING}|[{{}}\[\]:,]|[^\s{{}}\[\]:,\"]+", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SHOWN = 40


class _Refused(Exception):
    """A token is refused; its line is not known yet."""

    def __init__(self, reason: str, token: str) -> None:
        super().__init__(reason)
        self.token = token


class _Repeated(Exception):
    """An object has a repeated key."""


def load(text: str, limits: Limits, nonfinite: bool) -> Any:
    """Parse a JSON text.

    Raises:
        Malformed: with the line if it is known.
    """
    _check_count(text, limits)
    try:
        value = json.loads(
            text,
            parse_int=lambda token: _integer(token, limits),
            parse_float=lambda token: _real(token, limits),
            parse_constant=lambda token: _constant(token, nonfinite),
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as problem:
        raise Malformed(f"not JSON ({problem.msg}, column {problem.colno})", problem.lineno) from None
    except _Refused as refused:
        line = next((number for token, number in _tokens(text) if token == refused.token), None)
        raise Malformed(str(refused), line) from None
    except _Repeated:
        raise _repeated(text) from None
    except RecursionError:
        raise _too_deep(text, limits) from None
    _check_depth(value, text, limits)
    _check_surrogates(text)
    return value


def _integer(token: str, limits: Limits) -> int:
    if len(token) > limits.digits:
        raise _Refused(f"a number of {len(token):,} characters, more than {limits.digits}", token)
    return int(token)


def _real(token: str, limits: Limits) -> float:
    if len(token) > limits.digits:
        raise _Refused(f"a number of {len(token):,} characters, more than {limits.digits}", token)
    value = float(token)
    if math.isinf(value):
        raise _Refused(f"{token} is larger than any floating-point number", token)
    return value


def _constant(token: str, nonfinite: bool) -> float:
    if not nonfinite:
        raise _Refused(f"{token} is not JSON, which has finite numbers only", token)
    return float(token)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Repeated
    return value


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield every token with its line; slow, used for messages only."""
    line, last = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        yield match.group(), line


def _repeated(text: str) -> Malformed:
    """Find the repeated key and its line."""
    open_objects: list[dict[str, int] | None] = []  # keys of the open objects with their lines; None for a list
    previous = ""
    key_next = False
    for token, line in _tokens(text):
        if token in ("{", "["):
            open_objects.append({} if token == "{" else None)
        elif token in ("}", "]"):
            open_objects.pop()
        elif key_next and open_objects and open_objects[-1] is not None:
            key, keys = json.loads(token), open_objects[-1]
            if key in keys:
                return Malformed(f"key {key!r} is repeated (first on line {keys[key]})", line)
            keys[key] = line
        previous = token
        key_next = previous in ("{", ",")
    return Malformed("a key is repeated")


def _check_count(text: str, limits: Limits) -> None:
    """Refuse too many values before parsing: an empty list takes thirty times the memory of its two characters."""

    def counted(part: str) -> int:
        return part.count(",") + part.count("[") + part.count("{")

    if counted(text) >= limits.values and (values := counted(_STRINGS.sub("", text))) >= limits.values:
        raise Malformed(f"about {values:,} values, more than {limits.values:,}")


def _check_depth(value: Any, text: str, limits: Limits) -> None:
    level, depth = [value], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        if depth > limits.depth:
            raise _too_deep(text, limits)
        level = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]


def _too_deep(text: str, limits: Limits) -> Malformed:
    depth = 0
    for token, line in _tokens(text):
        depth += (token in ("{", "[")) - (token in ("}", "]"))
        if depth > limits.depth:
            return Malformed(f"lists and objects nested deeper than {limits.depth}", line)
    return Malformed(f"lists and objects nested deeper than {limits.depth}")


def _check_surrogates(text: str) -> None:
    """Refuse lone surrogates, which cannot be written to a file or a terminal."""
    if _SURROGATE.search(text) is None and r"\ud" not in text and r"\uD" not in text:
        return
    for token, line in _tokens(text):
        if token.startswith('"') and _SURROGATE.search(json.loads(token)):
            raise Malformed(f"{token[:_SHOWN]} contains a lone surrogate, which is not a character", line)
