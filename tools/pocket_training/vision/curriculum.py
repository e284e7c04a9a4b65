"""Training dialogues: a picture, and several questions about it with their answers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prunelab.models.vision.prompts import BRIEFLY, LETTERED
from prunelab.pocket.tasks.base import Piece, shuffled
from prunelab.pocket.vision.questions import ABSENT, LETTERS, OPEN, Asked, existence, lettered, reading, told
from prunelab.pocket.vision.scene import COLOURS, PLACES, SHAPES, Scene, make_scene

EARLY = 0.4
"""Part of training before which lists are the rule."""
ASKED = 6
"""Letters in a list of them."""
KINDS = (
    "existence", "reading", "lettered", "reasoned", "colour", "shape", "place", "count",
    "existences", "colours", "places", "letters",
)  # fmt: skip
"""What an answer's tokens are counted as; the last ones are lists."""


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

    The first question stands as benchmarks ask it, with the form of its answer. Early in training lists stand in for
    questions: they ask for more in fewer words.

    Args:
        rng: decides it.
        progress: of training, from 0 to 1.
    """
    scene = make_scene(rng, held_out=False)
    lists = max(0.3, 1.0 - progress / EARLY)
    waiting = shuffled(rng, LISTS)
    turns: list[Turn] = []
    for index, one in enumerate(_asked(rng, scene)):
        if waiting and rng.random() < lists:
            turns.append(waiting.pop()(rng, scene))
        else:
            turns.append(_turn(rng, one, form=index == 0 or rng.random() < 0.2))
    return Lesson(scene, turns)


def _listed(kind: str, prompt: str, pairs: Iterable[tuple[str, str]]) -> Turn:
    """Many small questions in one: what is asked about is given, and what is to be said about it is asked for."""
    pieces = []
    for key, value in pairs:
        pieces += [Piece(f" {key}:"), Piece(f" {value}", is_answer=True)]
    return Turn(kind, prompt, pieces)


def _which_are_there(rng: random.Random, scene: Scene) -> Turn:
    """Shapes that are there and as many that are not."""
    present = sorted(scene.present)
    absent = rng.sample([shape for shape in SHAPES if shape not in present], len(present))
    named = shuffled(rng, [*present, *absent])
    pairs = ((shape, "Yes" if shape in present else "No") for shape in named)
    return _listed("existences", "Which shapes are in the image?", pairs)


def _which_colours(rng: random.Random, scene: Scene) -> Turn:
    return _listed("colours", "What colour is each?", ((one.shape, one.colour) for one in shuffled(rng, scene.shapes)))


def _what_is_where(rng: random.Random, scene: Scene) -> Turn:
    """What is where, place by place in random order, with one place where nothing is."""
    seen = told(scene)
    full = [cell for cell, text in seen.items() if text != "nothing"]
    cells = shuffled(rng, [*full, *rng.sample([cell for cell in seen if cell not in full], 1)])
    return _listed("places", "What is where?", ((PLACES[cell], seen[cell]) for cell in cells))


def _which_letters(rng: random.Random, scene: Scene) -> Turn:
    """The letters of options that have nothing to do with the picture; any may be asked for again."""
    options = rng.sample(rng.choice((SHAPES, tuple(COLOURS), tuple("123456789"))), len(LETTERS))
    text = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    pairs = rng.choices(list(zip(options, LETTERS, strict=True)), k=ASKED)
    return _listed("letters", f"Which letters are these?\n{text}", pairs)


LISTS = (_which_are_there, _which_colours, _what_is_where, _which_letters)


def _asked(rng: random.Random, scene: Scene) -> Sequence[Asked]:
    """Enough to fill a row, in random order: existence twice, a lettered question, reading, and open ones."""
    asked = [
        *(existence(rng, scene, rng.choice(ABSENT), yes) for yes in (True, False)),
        lettered(rng, scene, rng.choice(OPEN)),
        reading(rng, scene),
        *(question(rng, scene) for question in rng.sample(OPEN[:-1], 2)),
    ]
    return shuffled(rng, [one for one in asked if one is not None])


def _turn(rng: random.Random, asked: Asked, form: bool) -> Turn:
    """A question with its answer; where no letter is asked for, the answer comes first and its letter behind it."""
    if asked.options and not form:
        return _listed("reasoned", prompt_of(asked, form), [(asked.answer, asked.letter)])
    answer = asked.letter if asked.options else asked.answer
    kind = "lettered" if asked.options else asked.kind
    return Turn(kind, prompt_of(asked, form), [Piece(f" {answer}", is_answer=True)])
