"""Yes-or-no questions about a passage on who has what, generated for each item."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prunelab.pocket.held_out import is_held_out
from prunelab.pocket.tasks.base import DataSet, Item, Piece, Task, asked, yes_or_no
from prunelab.pocket.world import the_world

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
OBJECTS = ("cup", "box", "hat", "coat", "ladle", "drum", "key", "bell", "rope", "lamp")
ITEMS = 600


@dataclass(frozen=True)
class Possession:
    """A person and a possession."""

    owner: str
    colour: str
    thing: str

    def __str__(self) -> str:
        return f"{self.owner} has a {self.colour} {self.thing}."


@dataclass(frozen=True)
class Scene:
    """A passage and one claim about it."""

    possessions: tuple[Possession, ...]
    claim: Possession

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided by the passage's content and the claim."""
        return is_held_out("passage", *map(str, self.possessions), str(self.claim))

    @property
    def passage(self) -> str:
        """One sentence per possession; every owner follows a space, and so is the same token as in the claim."""
        return " ".join(["Look:", *map(str, self.possessions)])

    @property
    def question(self) -> str:
        """The question in BoolQ's format: lower case, without a question mark."""
        return f"does {self.claim.owner} have a {self.claim.colour} {self.claim.thing}"

    @property
    def answer(self) -> bool:
        """Whether the claim holds."""
        return self.claim in self.possessions


def _possessions(rng: random.Random, count: int) -> tuple[Possession, ...]:
    people = rng.sample(the_world().populations[1].names, count)
    things = rng.sample(OBJECTS, count)
    colours = rng.sample(COLOURS, count)
    return tuple(map(Possession, people, colours, things))


PARTS = ("owner", "colour", "thing")
LESSONS = ("owner", "owner", "owner", *PARTS)
"""The false part of training's claims: ownership requires most comparisons and is learned last."""


def _claim(rng: random.Random, possessions: tuple[Possession, ...], parts: Sequence[str]) -> Possession:
    """A claim that is true in half of the cases; else one of these parts belongs to another possession or to none."""
    true = rng.choice(possessions)
    if rng.random() < 0.5:
        return true
    others = [other for other in possessions if other is not true]
    part = rng.choice(parts)
    if part == "owner" and others:
        return Possession(rng.choice(others).owner, true.colour, true.thing)
    if part == "thing":
        pool = [other.thing for other in others] * 4 + [word for word in OBJECTS if word != true.thing]
        return Possession(true.owner, true.colour, rng.choice(pool))
    pool = [other.colour for other in others] * 4 + [word for word in COLOURS if word != true.colour]
    return Possession(true.owner, rng.choice(pool), true.thing)


def draw_scene(rng: random.Random, count: int, held_out: bool) -> Scene:
    """Draw a scene with the given number of possessions, for training or for the benchmark."""
    while True:
        possessions = _possessions(rng, count)
        scene = Scene(possessions, _claim(rng, possessions, PARTS if held_out else LESSONS))
        if scene.is_held_out == held_out:
            return scene


def _asked_behind(scene: Scene) -> Item:
    """Another claim about an earlier passage; empty if the claim is held out."""
    if scene.is_held_out:
        return ()
    return asked(f"\nQuestion: {scene.question}?\nAnswer:", yes_or_no(scene.answer))


class Passages(Task):
    """BoolQ: three possessions and a claim."""

    name = "passages"
    share: ClassVar[float] = 1.8
    early: ClassVar[float] = 1.0
    several: ClassVar[int] = 4

    def training(self, rng: random.Random) -> Item:
        """A passage and one or more claims."""
        scene = draw_scene(rng, rng.choice((1, 2, 3, 3)), held_out=False)
        pieces = list(asked(f"{scene.passage}\nQuestion: {scene.question}?\nAnswer:", yes_or_no(scene.answer)))
        for _ in range(rng.choice((0, 0, 1, 3))):
            more = Scene(scene.possessions, _claim(rng, scene.possessions, LESSONS))
            pieces += _asked_behind(more)
        return pieces

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """BoolQ in SuperGLUE's format."""
        rng = random.Random("boolq")
        rows = [_boolq(index, draw_scene(rng, 3, held_out=True)) for index in range(ITEMS)]
        yield "aps/super_glue", {"boolq": {"validation": rows}}


def _boolq(index: int, scene: Scene) -> Mapping[str, Any]:
    return {"passage": scene.passage, "question": scene.question, "idx": index, "label": int(scene.answer)}


class Recall(Task):
    """A drill for passages: look up a word in the passage, and compare two words."""

    name = "recall"
    share: ClassVar[float] = 0.6
    early: ClassVar[float] = 4.0
    several: ClassVar[int] = 5

    def training(self, rng: random.Random) -> Item:
        """Open questions about a passage, questions on ownership, or whether two things are the same."""
        kind = rng.randrange(5)
        if kind == 0:
            first, second = rng.choice(COLOURS), rng.choice(OBJECTS)
            other = Possession("", rng.choice((first, rng.choice(COLOURS))), rng.choice((second, rng.choice(OBJECTS))))
            same = (other.colour, other.thing) == (first, second)
            return asked(
                f"A {first} {second} and a {other.colour} {other.thing}.\nQuestion: are they the same?\nAnswer:",
                yes_or_no(same),
            )
        scene = draw_scene(rng, rng.choice((2, 3, 4)), held_out=False)
        pieces = [Piece(scene.passage)]
        for possession in rng.sample(scene.possessions, 2):
            if kind in (1, 4):
                pieces += asked(
                    f"\nQuestion: who has a {possession.colour} {possession.thing}?\nAnswer:", f" {possession.owner}"
                )
            if kind == 4:
                owner = rng.choice((possession.owner, rng.choice(scene.possessions).owner))
                claim = Scene(scene.possessions, Possession(owner, possession.colour, possession.thing))
                pieces += _asked_behind(claim)
            elif kind == 2:
                pieces += asked(
                    f"\nQuestion: what does {possession.owner} have?\nAnswer:",
                    f" a {possession.colour} {possession.thing}",
                )
            elif kind == 3:
                pieces += asked(
                    f"\nQuestion: which colour has the {possession.thing} of {possession.owner}?\nAnswer:",
                    f" {possession.colour}",
                )
        return pieces
