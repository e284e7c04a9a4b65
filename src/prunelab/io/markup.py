"""Escape external text for Markdown, so that it renders literally."""

from __future__ import annotations

import re

from prunelab.errors.text import one_line

_REPLACED = re.compile(
    r"(?P<backslash>\\(?=[!-/:-@\[-`{-~]|$))"
    r"|(?P<escaped>[`\[\]|~])"
    r"|(?P<star>\*(?=\S))"  # a star before a space does not open emphasis
    r"|(?P<underscore>(?<![^\W_])_(?=\S))"  # nor does an underscore inside a word
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
    """Escape a text for use within a Markdown paragraph, heading or table cell, on one line.

    Escapes the syntax of Markdown, HTML, GitHub's math and automatic links; ordinary prose is unchanged.
    """
    return _REPLACED.sub(_escape, one_line(" ".join(str(text).split())))


def markdown_paragraph(text: object) -> str:
    """As `markdown`, for a text at the start of a paragraph: also escapes headings, lists and quotations."""
    return _BLOCK.sub(_escape_block, markdown(text), count=1)


def fenced(text: str, language: str = "") -> str:
    """Format a text as a fenced code block, with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = "\n".join(map(one_line, text.split("\n")))
    return f"{fence}{language}\n{lines}\n{fence}"


def indented(text: str) -> str:
    """Format a text as an indented code block."""
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
