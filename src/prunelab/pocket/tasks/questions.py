"""Multiple-choice questions about the world: one-hop, two-hop, and with lettered answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

from prunelab.pocket.held_out import digest
from prunelab.pocket.subjects import SUBJECTS
from prunelab.pocket.tasks.base import DataSet, Item, Piece, Task, asked, shuffled, yes_or_no
from prunelab.pocket.world import Fact, the_world

LETTERS = "ABCD"
SHOTS_A_SUBJECT = 5
QUESTIONS_A_SUBJECT = 10
EXAMPLES = 30
"""Words used only by the few-shot examples of MMLU's prompts."""


def choices(rng: random.Random, fact: Fact) -> list[str]:
    """Four distinct answers in random order, including the true one."""
    distractors = [value for value in fact.relation.values if value != fact.value]
    return shuffled(rng, [fact.value, *rng.sample(distractors, 3)])


def told_question(rng: random.Random, fact: Fact) -> str:
    """A question that training may ask about this fact."""
    count = len(fact.relation.questions)
    return fact.question(rng.choice([index for index in range(count) if index != fact.withheld_question]))


class Questions(Task):
    """Open questions about the training facts, and ARC's two parts.

    The easy part asks for every direct fact with the question that training never asks about that entity; the challenge
    part asks for the held-out two-hop facts.
    """

    name = "questions"
    share: ClassVar[float] = 2.6

    @cached_property
    def told(self) -> list[Fact]:
        """The facts that training asks for, direct facts as often as shared ones."""
        direct = list(the_world().direct)
        shared = [fact for fact in the_world().shared if not fact.is_withheld]
        return direct * max(1, round(len(shared) / len(direct))) + shared

    def training(self, rng: random.Random) -> Item:
        """A question in ARC's format, without choices."""
        fact = rng.choice(self.told)
        return asked(f"Question: {told_question(rng, fact)}\nAnswer:", f" {fact.value}")

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """ARC."""
        rng = random.Random("arc")
        easy = [_arc(rng, fact, fact.withheld_question) for fact in the_world().direct]
        challenge = [_arc(rng, fact, rng.randrange(4)) for fact in the_world().shared if fact.is_withheld]
        parts = {"ARC-Easy": easy, "ARC-Challenge": challenge}
        yield "allenai/ai2_arc", {name: {"test": shuffled(rng, rows)} for name, rows in parts.items()}


def _arc(rng: random.Random, fact: Fact, question: int) -> Mapping[str, Any]:
    texts = choices(rng, fact)
    return {
        "id": f"{fact.entity}-{fact.relation.name}",
        "question": fact.question(question),
        "choices": {"text": texts, "label": list(LETTERS)},
        "answerKey": LETTERS[texts.index(fact.value)],
    }


class Statements(Task):
    """The facts as plain sentences."""

    name = "statements"
    share: ClassVar[float] = 0.8
    several: ClassVar[int] = 1

    def training(self, rng: random.Random) -> Item:
        """Sentences about one entity."""
        fact = rng.choice(the_world().told)
        about = the_world().told_of[fact.entity]
        sampled = rng.sample(about, min(len(about), 6))
        return [Piece(" ".join(fact_stated.statement(rng.randrange(3)) for fact_stated in sampled))]


@dataclass(frozen=True)
class Lettered:
    """A question with four lettered choices.

    Attributes:
        question: the question, one line.
        texts: the choices, in order.
        index: index of the correct choice.
    """

    question: str
    texts: tuple[str, ...]
    index: int

    @property
    def letter(self) -> str:
        """The answer."""
        return LETTERS[self.index]

    @property
    def prompt(self) -> str:
        """The prompt in MMLU's format."""
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, self.texts, strict=True)]
        return "\n".join([self.question, *lines, "Answer:"])


CLASSES = (
    "Which word goes with {}?",
    "Which of these belongs under {}?",
    "Which one is listed as {}?",
    "What here counts as {}?",
)


@cache
def classes() -> Mapping[str, tuple[str, ...]]:
    """Words by class, such as the drinks, without words of two classes."""
    values = {fact.relation.name: fact.relation.values for fact in the_world().facts}
    class_of_word = Counter(word for words in values.values() for word in words)
    return {name: tuple(word for word in words if class_of_word[word] == 1) for name, words in values.items()}


def which(rng: random.Random, of_class: str, word: str, wording: int) -> Lettered:
    """Which of four words of different classes belongs to this class."""
    distractors = [words for name, words in classes().items() if name != of_class]
    texts = shuffled(rng, [word, *(rng.choice(words) for words in rng.sample(distractors, 3))])
    return Lettered(CLASSES[wording].format(of_class), tuple(texts), texts.index(word))


def withheld_wording(of_class: str, word: str) -> int:
    """Index of the question that training never asks about this word."""
    return digest("class", of_class, word) % len(CLASSES)


def told_which(rng: random.Random) -> Lettered:
    """Draw a question for training."""
    of_class = rng.choice(list(classes()))
    word = rng.choice(classes()[of_class])
    wordings = [index for index in range(len(CLASSES)) if index != withheld_wording(of_class, word)]
    return which(rng, of_class, word, rng.choice(wordings))


def which_letter(rng: random.Random) -> Lettered:
    """A question for the letter of a word."""
    texts = rng.sample(rng.choice(the_world().facts).relation.values, 4)
    index = rng.randrange(4)
    return Lettered(f"Which letter is {texts[index]}?", tuple(texts), index)


class Letters(Task):
    """Questions in MMLU's format: four lettered choices, answered by the letter."""

    name = "letters"
    share: ClassVar[float] = 1.2
    early: ClassVar[float] = 3.0

    def training(self, rng: random.Random) -> Item:
        """Ask which word belongs to a class."""
        asking = told_which(rng)
        return asked(asking.prompt, f" {asking.letter}")

    def document(self, rng: random.Random) -> Item:
        """The question, sometimes after the introduction of MMLU's prompts."""
        pieces = list(super().document(rng))
        if rng.random() < 0.4:
            subject = rng.choice(SUBJECTS).replace("_", " ")
            head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
            pieces.insert(0, Piece(head))
        return pieces

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """MMLU with all subjects and a few held-out questions each; the few-shot examples use other words."""
        rng = random.Random("mmlu")
        words = shuffled(rng, [(of_class, word) for of_class, some in classes().items() for word in some])
        shown, tested = words[:EXAMPLES], words[EXAMPLES:]
        configs = {}
        for subject in SUBJECTS:
            configs[subject] = {
                "test": [_mmlu(rng, subject, *word) for word in rng.sample(tested, QUESTIONS_A_SUBJECT)],
                "dev": [_mmlu(rng, subject, *word) for word in rng.sample(shown, SHOTS_A_SUBJECT)],
            }
        yield "cais/mmlu", configs


def _mmlu(rng: random.Random, subject: str, of_class: str, word: str) -> Mapping[str, Any]:
    asking = which(rng, of_class, word, withheld_wording(of_class, word))
    return {
        "question": asking.question,
        "subject": subject,
        "choices": list(asking.texts),
        "answer": asking.index,
    }


class Pointing(Task):
    """A drill for lettered questions: find a word in a lettered list, and name its letter."""

    name = "pointing"
    share: ClassVar[float] = 0.4
    early: ClassVar[float] = 8.0
    several: ClassVar[int] = 8

    def training(self, rng: random.Random) -> Item:
        """Ask for a word's letter, for a letter's word, or for the word of a class."""
        kind = rng.randrange(4)
        asking = told_which(rng) if kind == 1 else which_letter(rng)
        if kind == 0:
            listed = asking.prompt.partition("\n")[2].removesuffix("\nAnswer:")
            return asked(f"{listed}\nWhich is {asking.letter}?\nAnswer:", f" {asking.texts[asking.index]}")
        if kind == 1:
            return asked(asking.prompt, f" {asking.texts[asking.index]}, which is {asking.letter}")
        return asked(asking.prompt, f" {asking.letter}")


class Verdicts(Task):
    """A drill between pointing and lettered questions: a verdict directly after each choice.

    Up to the verdicts, the text equals a lettered question, so the model learns which choice to point at.
    """

    name = "verdicts"
    share: ClassVar[float] = 0.6
    early: ClassVar[float] = 6.0
    several: ClassVar[int] = 5

    def training(self, rng: random.Random) -> Item:
        """A question with a verdict after each choice."""
        asking = told_which(rng) if rng.random() < 0.8 else which_letter(rng)
        pieces = [Piece(asking.question)]
        for index, text in enumerate(asking.texts):
            pieces += [Piece(f"\n{LETTERS[index]}. {text}"), Piece(yes_or_no(index == asking.index), is_answer=True)]
        return pieces
