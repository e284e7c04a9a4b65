"""Questions about an image: existence, text, colours, shapes, places and counts, open or with lettered options."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunelab.pocket.vision.scene import COLOURS, FREQUENT, PLACES, SHAPES, WORDS, Scene, companion

LETTERS = "ABCD"
ABSENT = ("random", "popular", "adversarial")
"""POPE's categories of absent objects: any shape, a frequent one, or one that often occurs with present ones."""


@dataclass(frozen=True)
class Asked:
    """One question about an image.

    Attributes:
        kind: type of the question.
        question: the question, without instructions on the answer's format.
        answer: the correct answer.
        options: the options of a lettered question, including the answer.
    """

    kind: str
    question: str
    answer: str
    options: tuple[str, ...] = ()

    @property
    def letter(self) -> str:
        """The letter of the correct option."""
        return LETTERS[self.options.index(self.answer)]


def named(shape: str) -> str:
    """The shape with its article."""
    return f"{'an' if shape[0] in 'aeiou' else 'a'} {shape}"


def existence(rng: random.Random, scene: Scene, absent: str, yes: bool) -> Asked | None:
    """Whether a shape is in the image; None if no shape is absent in the requested category."""
    if yes:
        chosen = rng.choice(sorted(scene.present))
    else:
        among: Sequence[str] = {
            "random": SHAPES,
            "popular": FREQUENT,
            "adversarial": [companion(shape) for shape in sorted(scene.present)],
        }[absent]
        missing = [shape for shape in among if shape not in scene.present]
        if not missing:
            return None
        chosen = rng.choice(missing)
    return Asked("existence", f"Is there {named(chosen)} in the image?", "Yes" if yes else "No")


def reading(rng: random.Random, scene: Scene) -> Asked | None:
    """The sign's text; None without a sign."""
    if scene.sign is None:
        return None
    kind = "number" if scene.sign.is_number else "word"
    question = rng.choice(
        (f"What {kind} is written in the image?", f"Which {kind} is on the sign?", "What does the sign say?")
    )
    return Asked("reading", question, scene.sign.text)


def colour(rng: random.Random, scene: Scene) -> Asked | None:
    """A shape's colour."""
    drawn = rng.choice(scene.shapes)
    return Asked("colour", f"What colour is the {drawn.shape}?", drawn.colour)


def shape(rng: random.Random, scene: Scene) -> Asked | None:
    """The shape of a colour; None if no colour is unique."""
    colours = [drawn.colour for drawn in scene.shapes]
    single = [drawn for drawn in scene.shapes if colours.count(drawn.colour) == 1]
    if not single:
        return None
    drawn = rng.choice(single)
    return Asked("shape", f"Which shape is {drawn.colour}?", drawn.shape)


def place(rng: random.Random, scene: Scene) -> Asked | None:
    """The shape at a position."""
    drawn = rng.choice(scene.shapes)
    return Asked("place", f"Which shape is {PLACES[drawn.cell]}?", drawn.shape)


def count(rng: random.Random, scene: Scene) -> Asked | None:
    """The number of shapes."""
    return Asked("count", "How many shapes are in the image?", str(len(scene.shapes)))


def words(scene: Scene) -> list[tuple[str, str]]:
    """Two words per cell: a colour and a shape, two characters of the sign, or nothing."""
    by_cell = [("nothing", "nothing")] * len(PLACES)
    for drawn in scene.shapes:
        by_cell[drawn.cell] = (drawn.colour, drawn.shape)
    if scene.sign is not None:
        for cell in (0, 1):
            part = scene.sign.text[2 * cell : 2 * cell + 2]
            if part:
                by_cell[scene.sign.cell + cell] = (part[0], part[1:] or "nothing")
    return by_cell


def told(scene: Scene) -> dict[int, str]:
    """The content of each cell: a colour and a shape, a part of the sign, or nothing."""
    by_cell = dict.fromkeys(range(len(PLACES)), "nothing")
    by_cell.update({drawn.cell: f"{drawn.colour} {drawn.shape}" for drawn in scene.shapes})
    if scene.sign is not None:
        for cell in (0, 1):
            by_cell[scene.sign.cell + cell] = scene.sign.text[2 * cell : 2 * cell + 2] or "nothing"
    return by_cell


Question = Callable[[random.Random, Scene], Asked | None]
OPEN: tuple[Question, ...] = (colour, shape, place, count, reading)


def lettered(rng: random.Random, scene: Scene, question: Question) -> Asked | None:
    """An open question with four options; None if the scene does not allow it."""
    asked = question(rng, scene)
    if asked is None:
        return None
    wrong = rng.sample([text for text in _alike(rng, asked) if text != asked.answer], len(LETTERS) - 1)
    options = rng.sample([asked.answer, *wrong], len(LETTERS))
    return Asked(asked.kind, asked.question, asked.answer, tuple(options))


def _alike(rng: random.Random, asked: Asked) -> Sequence[str]:
    """Other possible answers."""
    if asked.kind == "colour":
        return list(COLOURS)
    if asked.kind in ("shape", "place"):
        return SHAPES
    if asked.kind == "count":
        return ["2", "3", "4", "5"]
    if asked.answer.isdigit():
        return list(dict.fromkeys(str(rng.randint(10, 9999)) for _ in range(8)))
    return WORDS
