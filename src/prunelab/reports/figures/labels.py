"""What stands in a figure: a text from outside is drawn as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context

from prunelab.errors.text import one_line

MOST = 80
"""Characters of a label; a longer one is cut in the middle, since a figure is as wide as its names."""


def label(text: object) -> str:
    """A text as a label of a figure, on one line.

    matplotlib leaves labels that begin with an underscore out of legends; a space in front keeps them.
    """
    shown = one_line(text, MOST)
    return f" {shown}" if shown.startswith("_") else shown


@contextmanager
def literal_text() -> Iterator[None]:
    """Texts made in the block are drawn as they are: `$` begins no formula, and TeX is not asked."""
    with rc_context({"text.parse_math": False, "text.usetex": False}):
        yield
