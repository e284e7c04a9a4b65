"""Training dialogues: an image with several questions and their answers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prunelab.models.vision.prompts import BRIEFLY, LETTERED
from prunelab.pocket.tasks.base import Piece, shuffled
from prunelab.pocket.vision.questions import ABSENT, LETTERS, OPEN, Asked, existence, lettered, reading, told
from prunelab.pocket.vision.scene import COLOURS, PLACES, SHAPES, Scene, make_scene

EARLY = 0.4
"""Progress of training up to which lists are used."""
ASKED = 6
"""Number of letters in a list."""
KINDS = (
    "existence", "reading", "lettered", "reasoned", "colour", "shape", "place", "count",
    "existences", "colours", "places", "letters",
)  # fmt: skip
"""Kinds of answer tokens; the last ones are lists."""


@dataclass(frozen=True)
class Turn:
    """A question as a prompt, with its answer.

    Attributes:
        kind: type of the question; lettered questions are a separate type.
        prompt: the question with its options and the requested format of the answer.
        answer: the answer's pieces; pieces that are not answers are given.
    """

    kind: str
    prompt: str
    answer: Sequence[Piece]

    @property
    def text(self) -> str:
        """The turn's text, for the tokenizer."""
        return f"User: {self.prompt}\nAssistant:{''.join(piece.text for piece in self.answer)}\n"


@dataclass(frozen=True)
class Lesson:
    """An image with its questions."""

    scene: Scene
    turns: Sequence[Turn]


def prompt_of(asked: Asked, form: bool) -> str:
    """The prompt of a question in the benchmarks' format.

    Args:
        asked: the question.
        form: whether to include the requested format of the answer.
    """
    if asked.options:
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, asked.options, strict=True))
        return f"{asked.question}\n{options}" + (f"\n{LETTERED}" if form else "")
    return asked.question + (f"\n{BRIEFLY}" if form else "")


def lesson(rng: random.Random, progress: float) -> Lesson:
    """A dialogue about an image that is not held out.

    The first question has the benchmarks' format, including the format of the answer. Early in training, lists replace
    questions, since they require more answers in fewer words.

    Args:
        rng: random generator.
        progress: progress of training, from 0 to 1.
    """
    scene = make_scene(rng, held_out=False)
    lists = max(0.3, 1.0 - progress / EARLY)
    waiting = shuffled(rng, LISTS)
    turns: list[Turn] = []
    for index, turn_drawn in enumerate(_asked(rng, scene)):
        if waiting and rng.random() < lists:
            turns.append(waiting.pop()(rng, scene))
        else:
            turns.append(_turn(rng, turn_drawn, form=index == 0 or rng.random() < 0.2))
    return Lesson(scene, turns)


def _listed(kind: str, prompt: str, pairs: Iterable[tuple[str, str]]) -> Turn:
    """Many small questions in one: the model is given each item and generates its value."""
    pieces = []
    for key, value in pairs:
        pieces += [Piece(f" {key}:"), Piece(f" {value}", is_answer=True)]
    return Turn(kind, prompt, pieces)


def _which_are_there(rng: random.Random, scene: Scene) -> Turn:
    """Present shapes and as many absent ones."""
    present = sorted(scene.present)
    absent = rng.sample([shape for shape in SHAPES if shape not in present], len(present))
    named = shuffled(rng, [*present, *absent])
    pairs = ((shape, "Yes" if shape in present else "No") for shape in named)
    return _listed("existences", "Which shapes are in the image?", pairs)


def _which_colours(rng: random.Random, scene: Scene) -> Turn:
    return _listed(
        "colours", "What colour is each?", ((drawn.shape, drawn.colour) for drawn in shuffled(rng, scene.shapes))
    )


def _what_is_where(rng: random.Random, scene: Scene) -> Turn:
    """The content of cells in random order, including one empty cell."""
    by_cell = told(scene)
    full = [cell for cell, text in by_cell.items() if text != "nothing"]
    cells = shuffled(rng, [*full, *rng.sample([cell for cell in by_cell if cell not in full], 1)])
    return _listed("places", "What is where?", ((PLACES[cell], by_cell[cell]) for cell in cells))


def _which_letters(rng: random.Random, scene: Scene) -> Turn:
    """The letters of options that are unrelated to the image, with repetition."""
    options = rng.sample(rng.choice((SHAPES, tuple(COLOURS), tuple("123456789"))), len(LETTERS))
    text = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    pairs = rng.choices(list(zip(options, LETTERS, strict=True)), k=ASKED)
    return _listed("letters", f"Which letters are these?\n{text}", pairs)


LISTS = (_which_are_there, _which_colours, _what_is_where, _which_letters)


def _asked(rng: random.Random, scene: Scene) -> Sequence[Asked]:
    """Enough questions to fill a row, in random order: two existence, one lettered, one reading, and open ones."""
    asked = [
        *(existence(rng, scene, rng.choice(ABSENT), yes) for yes in (True, False)),
        lettered(rng, scene, rng.choice(OPEN)),
        reading(rng, scene),
        *(question(rng, scene) for question in rng.sample(OPEN[:-1], 2)),
    ]
    return shuffled(rng, [candidate for candidate in asked if candidate is not None])


def _turn(rng: random.Random, asked: Asked, form: bool) -> Turn:
    """A question with its answer; if no letter is requested, the letter follows the answer."""
    if asked.options and not form:
        return _listed("reasoned", prompt_of(asked, form), [(asked.answer, asked.letter)])
    answer = asked.letter if asked.options else asked.answer
    kind = "lettered" if asked.options else asked.kind
    return Turn(kind, prompt_of(asked, form), [Piece(f" {answer}", is_answer=True)])
