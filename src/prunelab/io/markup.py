"""Text from outside, made fit to stand in Markdown: it reads the same and makes nothing."""

from __future__ import annotations

import re

from prunelab.errors.text import one_line

_REPLACED = re.compile(
    r"(?P<backslash>\\(?=[!-/:-@\[-`{-~]|$))"
    r"|(?P<escaped>[`\[\]|~])"
    r"|(?P<star>\*(?=\S))"  # what a space follows opens no emphasis
    r"|(?P<underscore>(?<![^\W_])_(?=\S))"  # nor does one inside a word
    r"|(?P<less><(?=[A-Za-z/!?]))"
    r"|(?P<ampersand>&(?=#?\w+;))"
    r"|(?P<dollar>\$)"  # mathematics on GitHub
    r"|(?P<address>(?<=[hH][tT][tT][pP]):(?=//)|(?<=[hH][tT][tT][pP][sS]):(?=//)|(?<=[wW][wW][wW])\.)"
)
_ENTITIES = {"less": "&lt;", "ampersand": "&amp;", "dollar": "&#36;"}
_BLOCK = re.compile(
    r"^(?P<mark>>|#{1,6}(?=\s|$)|[-+*](?=\s|$)|=+\s*$|-+\s*$|_(?=[_\s]*$))"
    r"|^(?P<number>\d{1,9})(?P<end>[.)])(?=\s|$)"
)


def markdown(text: object) -> str:
    """A text for the inside of a Markdown paragraph, heading or table cell, on one line.

    What Markdown, HTML in it, GitHub's mathematics and its automatic links would act on is escaped; prose stays as it
    is written.
    """
    return _REPLACED.sub(_escape, one_line(" ".join(str(text).split())))


def markdown_paragraph(text: object) -> str:
    """As `markdown`, for a text that begins a paragraph: it begins no heading, list or quotation either."""
    return _BLOCK.sub(_escape_block, markdown(text), count=1)


def fenced(text: str, language: str = "") -> str:
    """A text as a fenced block of code, whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = "\n".join(map(one_line, text.split("\n")))
    return f"{fence}{language}\n{lines}\n{fence}"


def indented(text: str) -> str:
    """A text as an indented block of code."""
    return "\n".join(f"    {one_line(line)}" for line in text.splitlines() or [""])


def _escape(match: re.Match[str]) -> str:
    kind = str(match.lastgroup)
    if kind == "address":
        return f"&#{ord(match.group())};"
    return _ENTITIES.get(kind) or f"\\{match.group()}"


def _escape_block(match: re.Match[str]) -> str:
    if match["number"] is not None:
        return f"{match['number']}\\{match['end']}"
    return f"\\{match['mark']}"
