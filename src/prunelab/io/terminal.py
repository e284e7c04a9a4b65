"""Console output: external text is printed literally, and cannot break its line or move the cursor."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from prunelab.errors.text import one_line


class Terminal(Console):
    """A console that treats every string as plain text.

    This covers printed strings as well as the cells, headings and titles of tables: brackets, colons and backslashes
    are printed literally, and control characters as escapes. `labelled` and `Text` add colours.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string literally."""
        return super().render_str(one_line(text), **{**options, "markup": False, "emoji": False, "highlight": False})


def labelled(label: str, style: str, text: object) -> Text:
    """A coloured label and a text, such as `error: no such file`."""
    return Text.assemble((label, style), " ", one_line(text))


def plain(text: object, style: str = "", **options: Any) -> Text:
    """A literal text in one style."""
    return Text(one_line(text), style=style, **options)


def accept_any_character() -> None:
    """Print characters outside the terminal's encoding, such as `±` in ASCII, as escapes instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where a test or a notebook has replaced it
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
