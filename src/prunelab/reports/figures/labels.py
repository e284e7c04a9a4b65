"""Labels of figures: external text is drawn literally."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context

from prunelab.errors.text import one_line

MOST = 80
"""Maximum length of a label in characters; a longer label is shortened in the middle."""


def label(text: object) -> str:
    """Format a text as a one-line label of a figure.

    matplotlib omits labels that begin with an underscore from legends; a leading space prevents this.
    """
    shown = one_line(text, MOST)
    return f" {shown}" if shown.startswith("_") else shown


@contextmanager
def literal_text() -> Iterator[None]:
    """A context in which matplotlib draws texts literally: `$` does not start a formula, and TeX is not used."""
    with rc_context({"text.parse_math": False, "text.usetex": False}):
        yield
