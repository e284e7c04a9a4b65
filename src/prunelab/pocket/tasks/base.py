"""Base class of tasks: a source of training items and of datasets of held-out items."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

Rows = Sequence[Mapping[str, Any]]
DataSet = Mapping[str, Mapping[str, Rows]]
"""Rows by split, by configuration."""


@dataclass(frozen=True)
class Piece:
    """A piece of training text.

    Attributes:
        text: the text.
        is_answer: whether the model should generate the text, not read it.
    """

    text: str
    is_answer: bool = False


Item = Sequence[Piece]


def asked(prompt: str, answer: str) -> Item:
    """A prompt and its answer."""
    return (Piece(prompt), Piece(answer, is_answer=True))


class Task(ABC):
    """One task, phrased in training as in the benchmark of the same schema.

    Attributes:
        name: unique name of the task.
        share: share of the training tokens, relative to the other tasks.
        early: factor of the share at the start of training.
        several: maximum number of items in one document, separated by blank lines like examples in a prompt.
    """

    name: str
    share: ClassVar[float]
    early: ClassVar[float] = 1.0
    several: ClassVar[int] = 6

    @abstractmethod
    def training(self, rng: random.Random) -> Item:
        """One training item, which no benchmark contains."""

    def document(self, rng: random.Random) -> Item:
        """A document of one or more items."""
        pieces: list[Piece] = []
        for index in range(rng.randint(1, self.several)):
            if index:
                pieces.append(Piece("\n\n"))
            pieces += self.training(rng)
        return pieces

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """Miniature contents of hub repositories; by default none."""
        return iter(())


def yes_or_no(answer: bool) -> str:
    """The answer in the format of BoolQ's choices."""
    return " yes" if answer else " no"


def shuffled(rng: random.Random, of: Sequence[Any]) -> list[Any]:
    """The items in random order."""
    return rng.sample(list(of), len(of))
