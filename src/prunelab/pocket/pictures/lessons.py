"""Training dialogues: a picture, and several questions about it with their answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from prunelab.pocket.pictures.questions import ABSENT, LETTERS, OPEN, Asked, existence, lettered, reading, told
from prunelab.pocket.pictures.scene import PLACES, Scene, make_scene
from prunelab.pocket.tasks.base import Piece, shuffled
from prunelab.vision.prompts import BRIEFLY, LETTERED

EARLY = 0.2
"""Part of training before which every lesson begins with a description."""


@dataclass(frozen=True)
class Turn:
    """A question in the words of a prompt, and its answer.

    Attributes:
        kind: what it is about; lettered questions are a kind of their own.
        prompt: the question, with the options and what form the answer is to have.
        answer: what the model is to say; pieces that are no answer are given to it.
    """

    kind: str
    prompt: str
    answer: Sequence[Piece]

    @property
    def text(self) -> str:
        """All its words, for the tokenizer."""
        return f"User: {self.prompt}\nAssistant:{''.join(piece.text for piece in self.answer)}\n"


@dataclass(frozen=True)
class Lesson:
    """A picture and what is asked about it."""

    scene: Scene
    turns: Sequence[Turn]


def prompt_of(asked: Asked, form: bool) -> str:
    """The prompt of a question as the benchmarks put it.

    Args:
        asked: the question.
        form: whether to say what form the answer is to have.
    """
    if asked.options:
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, asked.options, strict=True))
        return f"{asked.question}\n{options}" + (f"\n{LETTERED}" if form else "")
    return asked.question + (f"\n{BRIEFLY}" if form else "")


def lesson(rng: random.Random, progress: float) -> Lesson:
    """A dialogue about a picture that no benchmark shows.

    The first question stands as benchmarks ask it, with the form of its answer. Early in training, and now and then
    later, a description comes first.

    Args:
        rng: decides it.
        progress: of training, from 0 to 1.
    """
    scene = make_scene(rng, held_out=False)
    turns = [_turn(one, form=index == 0) for index, one in enumerate(_asked(rng, scene))]
    first = progress < EARLY or rng.random() < 0.15
    turns.insert(0 if first else 2, _description(rng, scene))
    return Lesson(scene, turns)


def _description(rng: random.Random, scene: Scene) -> Turn:
    """What is where, place by place in random order: taught so that the eyes learn fast, and asked by no benchmark."""
    seen = told(scene)
    full = [cell for cell, text in seen.items() if text != "nothing"]
    cells = shuffled(rng, [*full, *rng.sample([cell for cell in seen if cell not in full], 1)])
    pieces = []
    for cell in cells:
        pieces += [Piece(f" {PLACES[cell]}:"), Piece(f" {seen[cell]}", is_answer=True)]
    return Turn("description", "What is where?", pieces)


def _asked(rng: random.Random, scene: Scene) -> Sequence[Asked]:
    """Enough to fill a row, in random order: existence twice, a lettered question, reading, and open ones."""
    asked = [
        *(existence(rng, scene, rng.choice(ABSENT), yes) for yes in (True, False)),
        lettered(rng, scene, rng.choice(OPEN)),
        reading(rng, scene),
        *(question(rng, scene) for question in rng.sample(OPEN[:-1], 2)),
    ]
    return shuffled(rng, [one for one in asked if one is not None])


def _turn(asked: Asked, form: bool) -> Turn:
    answer = asked.letter if asked.options else asked.answer
    kind = "lettered" if asked.options else asked.kind
    return Turn(kind, prompt_of(asked, form or bool(asked.options)), [Piece(f" {answer}", is_answer=True)])
