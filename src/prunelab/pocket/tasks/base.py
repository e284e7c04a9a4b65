"""What a task is: a source of training items, and a data set of held-out ones."""

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
    """A stretch of training text.

    Attributes:
        text: as it stands.
        is_answer: whether it is what the model is asked for, rather than what it is given.
    """

    text: str
    is_answer: bool = False


Item = Sequence[Piece]


def asked(prompt: str, answer: str) -> Item:
    """A prompt and its answer."""
    return (Piece(prompt), Piece(answer, is_answer=True))


class Task(ABC):
    """One ability, taught in the words in which the benchmark of the same schema asks for it.

    Attributes:
        name: unique among tasks.
        share: of the tokens of training, relative to the others.
        early: what the share is multiplied with while training begins.
        several: the most items in one document; they are parted by blank lines, as examples in a prompt are.
    """

    name: str
    share: ClassVar[float]
    early: ClassVar[float] = 1.0
    several: ClassVar[int] = 6

    @abstractmethod
    def training(self, rng: random.Random) -> Item:
        """One item that no benchmark asks."""

    def document(self, rng: random.Random) -> Item:
        """Several items, or one."""
        pieces: list[Piece] = []
        for index in range(rng.randint(1, self.several)):
            if index:
                pieces.append(Piece("\n\n"))
            pieces += self.training(rng)
        return pieces

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """Repositories of the hub with miniature contents; by default none."""
        return iter(())


def yes_or_no(answer: bool) -> str:
    """As BoolQ's choices are."""
    return " yes" if answer else " no"


def shuffled(rng: random.Random, of: Sequence[Any]) -> list[Any]:
    """The same in random order."""
    return rng.sample(list(of), len(of))
