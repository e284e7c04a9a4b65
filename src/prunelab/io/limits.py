"""How large and how deep a JSON or YAML text may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of one text.

    Attributes:
        size: bytes of a file, characters of a text.
        depth: lists and mappings inside each other.
        values: values in all; what a YAML alias stands for counts each time.
        digits: characters of a number.
    """

    size: int
    depth: int = 64
    values: int = 2_000_000
    digits: int = 64


JSON = Limits(size=64 << 20)
"""Holds what checkpoints hold: a tokenizer of 260,000 tokens has some 20 MB; `model_max_length` has 31 digits."""

YAML = Limits(size=256 << 10, values=50_000)
"""Smaller, since YAML is read slowly: some 100 kB a second."""


class Malformed(ValueError):
    """A text that is not what it should be.

    Attributes:
        line: of the text, from 1; None where it is not known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line
