"""Copying, matching and comparing in their barest form, with which training begins.

A model of this size does not come to compare and to point by itself: these drills ask for it at nearly every token.
"""

from __future__ import annotations

import random
from functools import cache
from typing import ClassVar

from prunelab.pocket.tasks.base import Item, Piece, Task
from prunelab.pocket.world import the_world

LETTERS = "ABCDEFGH"


@cache
def words() -> tuple[str, ...]:
    """Everything that has a name in the world."""
    names = [name for population in the_world().populations for name in population.names]
    values = [value for fact in the_world().facts for value in fact.relation.values]
    return tuple(dict.fromkeys([*names, *values]))


class Drills(Task):
    """Four drills, each a document of its own; most of what training begins with."""

    name = "drills"
    share: ClassVar[float] = 0.3
    early: ClassVar[float] = 100.0
    several: ClassVar[int] = 1

    def training(self, rng: random.Random) -> Item:
        """One of the drills."""
        return rng.choice((_copied, _looked_up, _lettered, _compared))(rng)


def _copied(rng: random.Random) -> Item:
    """Words, and the same again."""
    drawn = rng.sample(words(), rng.randint(4, 12))
    return [Piece("Words:"), Piece("".join(f" {word}" for word in drawn)), Piece("\nAgain:"),
            Piece("".join(f" {word}" for word in drawn), is_answer=True)]  # fmt: skip


def _looked_up(rng: random.Random) -> Item:
    """Pairs, and the second word of each by its first, in another order."""
    count = rng.randint(3, 8)
    drawn = rng.sample(words(), 2 * count)
    pairs = list(zip(drawn[:count], drawn[count:], strict=True))
    pieces = [Piece("".join(f"{key} has {value}.\n" for key, value in pairs))]
    for key, value in rng.sample(pairs, count):
        pieces += [Piece(f"{key} has"), Piece(f" {value}", is_answer=True), Piece(".\n")]
    return pieces


def _lettered(rng: random.Random) -> Item:
    """Words with letters, and the letter of each, in another order."""
    count = rng.randint(3, 8)
    drawn = rng.sample(words(), count)
    pairs = list(zip(LETTERS, drawn, strict=False))
    pieces = [Piece("".join(f"{letter}. {word}\n" for letter, word in pairs))]
    for letter, word in rng.sample(pairs, count):
        pieces += [Piece(f"{word}\nAnswer:"), Piece(f" {letter}", is_answer=True), Piece("\n")]
    return pieces


def _compared(rng: random.Random) -> Item:
    """Whether two words, or two pairs of words, are the same; half of them are.

    Either every line has words of its own, so that a word seen before is the answer, or all lines share a few.
    """
    shared = rng.sample(words(), 4) if rng.random() < 0.3 else None
    pieces = []
    for _ in range(rng.randint(6, 12)):
        drawn = rng.sample(shared or words(), 4)
        first = drawn[: rng.randint(1, 2)]
        second = list(first)
        if rng.random() < 0.5:
            second[rng.randrange(len(second))] = drawn[-1]
        answer = " yes" if first == second else " no"
        pieces += [Piece(f"{' '.join(first)} is {' '.join(second)}?"), Piece(answer, is_answer=True), Piece("\n")]
    return pieces
