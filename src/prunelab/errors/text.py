"""Escape external text so that it fits on one line."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: object, limit: int | None = None) -> str:
    """Escape characters that end the line, move the cursor or reorder the text.

    Control characters (such as those that begin ANSI sequences), line separators, directional marks and lone surrogates
    become escapes such as `\\n` and `\\x1b`.

    Args:
        text: any object; converted with `str`.
        limit: maximum length in characters; a longer text is cut in the middle.
    """
    cleaned = _UNPRINTABLE.sub(_escape, str(text))
    if limit is not None and len(cleaned) > limit:
        half = (limit - 5) // 2
        cleaned = f"{cleaned[: limit - 5 - half]} ... {cleaned[len(cleaned) - half :]}"
    return cleaned


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
