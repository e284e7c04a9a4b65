"""Limits on the size and depth of JSON and YAML texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one text.

    Attributes:
        size: maximum bytes of a file, or characters of a text.
        depth: maximum nesting of lists and mappings.
        values: maximum number of values; the target of a YAML alias counts each time it is used.
        digits: maximum characters of a number.
    """

    size: int
    depth: int = 64
    values: int = 2_000_000
    digits: int = 64


JSON = Limits(size=64 << 20)
"""Large enough for checkpoints: a tokenizer of 260,000 tokens takes about 20 MB; `model_max_length` has 31 digits."""

YAML = Limits(size=256 << 10, values=50_000)
"""Smaller, because parsing YAML is slow, about 100 kB per second."""


class Malformed(ValueError):
    """A text is malformed or exceeds a limit.

    Attributes:
        line: line of the text, from 1; None if unknown.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line
