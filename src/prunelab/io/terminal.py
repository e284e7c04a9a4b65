"""Printing: a text from outside is printed as it is, never as markup, and cannot leave its line or move the cursor."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from prunelab.errors.text import one_line


class Terminal(Console):
    """A console to which every string is plain text.

    All strings pass here, whether printed by themselves or as a table's cells, headings and title: brackets, colons and
    backslashes are printed as they are, and control characters as escapes. Colours are given by `labelled` and `Text`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as it is printed."""
        return super().render_str(one_line(text), **{**options, "markup": False, "emoji": False, "highlight": False})


def labelled(label: str, style: str, text: object) -> Text:
    """A coloured label and a text, such as `error: no such file`."""
    return Text.assemble((label, style), " ", one_line(text))


def plain(text: object, style: str = "", **options: Any) -> Text:
    """A text as it is, in one style."""
    return Text(one_line(text), style=style, **options)


def accept_any_character() -> None:
    """What the terminal's encoding does not have, such as `±` in ASCII, is printed as an escape instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where a test or a notebook has replaced it
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
