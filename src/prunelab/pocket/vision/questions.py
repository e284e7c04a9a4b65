"""What is asked about a picture: existence, reading, colours, shapes, places and numbers; openly or with letters."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunelab.pocket.vision.scene import COLOURS, FREQUENT, PLACES, SHAPES, WORDS, Scene, companion

LETTERS = "ABCD"
ABSENT = ("random", "popular", "adversarial")
"""How POPE chooses what is not there: any shape, one that is frequent, or one that is often beside those that are."""


@dataclass(frozen=True)
class Asked:
    """One question about a picture.

    Attributes:
        kind: what it is about.
        question: as it stands, without words about the form of the answer.
        answer: the right one.
        options: of lettered questions, the texts behind the letters; the answer is then one of them.
    """

    kind: str
    question: str
    answer: str
    options: tuple[str, ...] = ()

    @property
    def letter(self) -> str:
        """The letter of the right option."""
        return LETTERS[self.options.index(self.answer)]


def named(shape: str) -> str:
    """With its article."""
    return f"{'an' if shape[0] in 'aeiou' else 'a'} {shape}"


def existence(rng: random.Random, scene: Scene, absent: str, yes: bool) -> Asked | None:
    """Whether a shape is in the picture; None where no shape is absent in the way asked for."""
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
    """What is written; None where nothing is."""
    if scene.sign is None:
        return None
    kind = "number" if scene.sign.is_number else "word"
    question = rng.choice(
        (f"What {kind} is written in the image?", f"Which {kind} is on the sign?", "What does the sign say?")
    )
    return Asked("reading", question, scene.sign.text)


def colour(rng: random.Random, scene: Scene) -> Asked | None:
    """A shape's colour."""
    one = rng.choice(scene.shapes)
    return Asked("colour", f"What colour is the {one.shape}?", one.colour)


def shape(rng: random.Random, scene: Scene) -> Asked | None:
    """The shape that has a colour; None where every colour occurs twice."""
    colours = [one.colour for one in scene.shapes]
    single = [one for one in scene.shapes if colours.count(one.colour) == 1]
    if not single:
        return None
    one = rng.choice(single)
    return Asked("shape", f"Which shape is {one.colour}?", one.shape)


def place(rng: random.Random, scene: Scene) -> Asked | None:
    """The shape at a place."""
    one = rng.choice(scene.shapes)
    return Asked("place", f"Which shape is {PLACES[one.cell]}?", one.shape)


def count(rng: random.Random, scene: Scene) -> Asked | None:
    """How many shapes there are."""
    return Asked("count", "How many shapes are in the image?", str(len(scene.shapes)))


def words(scene: Scene) -> list[tuple[str, str]]:
    """Two words for every cell: a colour and a shape, two characters of the sign, or nothing."""
    seen = [("nothing", "nothing")] * len(PLACES)
    for one in scene.shapes:
        seen[one.cell] = (one.colour, one.shape)
    if scene.sign is not None:
        for cell in (0, 1):
            part = scene.sign.text[2 * cell : 2 * cell + 2]
            if part:
                seen[scene.sign.cell + cell] = (part[0], part[1:] or "nothing")
    return seen


def told(scene: Scene) -> dict[int, str]:
    """What is to be seen in every cell: a colour and a shape, a part of the sign, or nothing."""
    seen = dict.fromkeys(range(len(PLACES)), "nothing")
    seen.update({one.cell: f"{one.colour} {one.shape}" for one in scene.shapes})
    if scene.sign is not None:
        for cell in (0, 1):
            seen[scene.sign.cell + cell] = scene.sign.text[2 * cell : 2 * cell + 2] or "nothing"
    return seen


Question = Callable[[random.Random, Scene], Asked | None]
OPEN: tuple[Question, ...] = (colour, shape, place, count, reading)


def lettered(rng: random.Random, scene: Scene, question: Question) -> Asked | None:
    """An open question with four options; None where it cannot be asked of the scene."""
    asked = question(rng, scene)
    if asked is None:
        return None
    wrong = rng.sample([text for text in _alike(rng, asked) if text != asked.answer], len(LETTERS) - 1)
    options = rng.sample([asked.answer, *wrong], len(LETTERS))
    return Asked(asked.kind, asked.question, asked.answer, tuple(options))


def _alike(rng: random.Random, asked: Asked) -> Sequence[str]:
    """What else could be the answer."""
    if asked.kind == "colour":
        return list(COLOURS)
    if asked.kind in ("shape", "place"):
        return SHAPES
    if asked.kind == "count":
        return ["2", "3", "4", "5"]
    if asked.answer.isdigit():
        return list(dict.fromkeys(str(rng.randint(10, 9999)) for _ in range(8)))
    return WORDS
