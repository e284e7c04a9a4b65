"""Minimal exercises in copying, lookup, pointing and comparing, with which training begins.

A model of this size does not learn to compare and point unaided: these drills require it at nearly every token. A
word always follows a space, so that it is the same token everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

from prunelab.pocket.tasks.base import Item, Piece, Task, asked, yes_or_no
from prunelab.pocket.world import the_world

LETTERS = "ABCDEFGH"
DISTANCES = ("", "", "?", "?\nAnswer:")
"""Texts between a question's last word and the answer, so that the model learns to carry the result forward."""


@cache
def words() -> tuple[str, ...]:
    """All names of the world."""
    names = [name for population in the_world().populations for name in population.names]
    values = [value for fact in the_world().facts for value in fact.relation.values]
    return tuple(dict.fromkeys([*names, *values]))


class Drill(Task):
    """One drill; each item is a document."""

    share = 0.2
    early = 50.0
    several = 1

    def __init__(self, draw: Callable[[random.Random], Item]) -> None:
        self.name = draw.__name__
        self._draw = draw

    def training(self, rng: random.Random) -> Item:
        """An item."""
        return self._draw(rng)


def copying(rng: random.Random) -> Item:
    """Words, followed by the same words."""
    drawn = rng.sample(words(), rng.randint(4, 12))
    return [Piece("Words:"), Piece(_listed(drawn)), Piece("\nAgain:"), Piece(_listed(drawn), is_answer=True)]


def looking_up(rng: random.Random) -> Item:
    """Pairs, then the second word of each given its first, in another order."""
    pairs = _pairs(rng, rng.randint(3, 8))
    pieces = [_told(pairs)]
    for key, value in rng.sample(pairs, len(pairs)):
        pieces += [Piece(f" Then {key} has"), Piece(f" {value}", is_answer=True), Piece(".")]
    return pieces


def lettering(rng: random.Random) -> Item:
    """Lettered words, then the letter of each, in another order."""
    count = rng.randint(3, 8)
    pairs = list(zip(LETTERS, rng.sample(words(), count), strict=False))
    pieces = [Piece("".join(f"{letter}. {word}\n" for letter, word in pairs))]
    for letter, word in rng.sample(pairs, count):
        pieces += [
            Piece(f"The letter of {word}{rng.choice(DISTANCES)}"),
            Piece(f" {letter}", is_answer=True),
            Piece("\n"),
        ]
    return pieces


def choosing(rng: random.Random) -> Item:
    """A word, then lettered words, and the letter of that word."""
    drawn = rng.sample(words(), rng.randint(2, 5))
    index = rng.randrange(len(drawn))
    lines = [f"{letter}. {word}" for letter, word in zip(LETTERS, drawn, strict=False)]
    prompt = "\n".join([f"Which letter is {drawn[index]}?", *lines, "Answer:"])
    return asked(prompt, f" {LETTERS[index]}")


def finding(rng: random.Random) -> Item:
    """Whether words are in a list; half of them are."""
    there = rng.sample(words(), rng.randint(2, 6))
    pieces = [Piece(f"Words:{_listed(there)}\n")]
    for _ in range(rng.randint(3, 8)):
        wanted = rng.choice(there) if rng.random() < 0.5 else rng.choice(words())
        answer = yes_or_no(wanted in there)
        pieces += [Piece(f"Is here {wanted}{rng.choice(DISTANCES)}"), Piece(answer, is_answer=True), Piece("\n")]
    return pieces


def comparing(rng: random.Random) -> Item:
    """Whether two words form a pair; if not, the second belongs to another pair."""
    pairs = _pairs(rng, rng.randint(2, 5))
    pieces = [_told(pairs), Piece("\n")]
    for _ in range(rng.randint(3, 8)):
        key, value = rng.choice(pairs)
        if rng.random() < 0.5:
            value = rng.choice([other for _, other in pairs if other != value])
        answer = yes_or_no((key, value) in pairs)
        pieces += [Piece(f"Has {key} got {value}{rng.choice(DISTANCES)}"), Piece(answer, is_answer=True), Piece("\n")]
    return pieces


def _pairs(rng: random.Random, count: int) -> list[tuple[str, str]]:
    drawn = rng.sample(words(), 2 * count)
    return list(zip(drawn[:count], drawn[count:], strict=True))


def _told(pairs: Sequence[tuple[str, str]]) -> Piece:
    return Piece("".join(f" Here {key} has {value}." for key, value in pairs))


def _listed(drawn: Sequence[str]) -> str:
    return "".join(f" {word}" for word in drawn)


DRILLS = tuple(map(Drill, (copying, looking_up, lettering, choosing, finding, comparing)))
"""The mix of drills at the start of training."""
