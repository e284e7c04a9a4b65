"""Multiple choice about the world: of one hop, of two hops, and with lettered answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from prunelab.pocket.subjects import SUBJECTS
from prunelab.pocket.tasks.base import DataSet, Item, Piece, Task, asked, shuffled
from prunelab.pocket.world import Fact, the_world

LETTERS = "ABCD"
SHOTS_A_SUBJECT = 5
QUESTIONS_A_SUBJECT = 10


def choices(rng: random.Random, fact: Fact) -> list[str]:
    """Four different answers in random order, the true one among them."""
    others = [value for value in fact.relation.values if value != fact.value]
    return shuffled(rng, [fact.value, *rng.sample(others, 3)])


def told_question(rng: random.Random, fact: Fact) -> str:
    """One of the questions that training may ask about this fact."""
    count = len(fact.relation.questions)
    return fact.question(rng.choice([index for index in range(count) if index != fact.withheld_question]))


class Questions(Task):
    """Open questions about facts that training may tell, and ARC's two parts.

    The easy part asks every direct fact with the one question that training never asks about that entity; the
    challenge asks the withheld two-hop facts.
    """

    name = "questions"
    share: ClassVar[float] = 1.2

    @cached_property
    def told(self) -> list[Fact]:
        """What may be asked; direct facts, which everything else builds on, as often as shared ones."""
        direct = list(the_world().direct)
        shared = [fact for fact in the_world().shared if not fact.is_withheld]
        return direct * max(1, round(len(shared) / len(direct))) + shared

    def training(self, rng: random.Random) -> Item:
        """A question in the form of ARC's, whose choices are not shown."""
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
    share: ClassVar[float] = 0.6
    several: ClassVar[int] = 1

    def training(self, rng: random.Random) -> Item:
        """Sentences about one entity."""
        fact = rng.choice(the_world().told)
        about = the_world().told_of[fact.entity]
        told = rng.sample(about, min(len(about), 6))
        return [Piece(" ".join(one.statement(rng.randrange(3)) for one in told))]


class Letters(Task):
    """Questions in the form of MMLU's: four lettered choices, answered by the letter."""

    name = "letters"
    share: ClassVar[float] = 2.0
    early: ClassVar[float] = 1.5

    def training(self, rng: random.Random) -> Item:
        """Ask for the letter of a fact."""
        fact = rng.choice(the_world().told)
        texts = choices(rng, fact)
        return asked(_lettered(told_question(rng, fact), texts), f" {LETTERS[texts.index(fact.value)]}")

    def document(self, rng: random.Random) -> Item:
        """Sometimes behind the words with which MMLU's prompts begin."""
        pieces = list(super().document(rng))
        if rng.random() < 0.4:
            subject = rng.choice(SUBJECTS).replace("_", " ")
            head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
            pieces.insert(0, Piece(head))
        return pieces

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """MMLU, all subjects; each asks about a few relations, with the questions that training withholds."""
        rng = random.Random("mmlu")
        facts = shuffled(rng, the_world().direct)
        wanted = len(SUBJECTS) * QUESTIONS_A_SUBJECT
        tested, shown = facts[:wanted], facts[wanted:]
        configs = {}
        for index, subject in enumerate(SUBJECTS):
            mine = tested[index * QUESTIONS_A_SUBJECT : (index + 1) * QUESTIONS_A_SUBJECT]
            examples = rng.sample(shown, SHOTS_A_SUBJECT)
            configs[subject] = {
                "test": [_mmlu(rng, subject, fact, fact.withheld_question) for fact in mine],
                "dev": [_mmlu(rng, subject, fact, fact.withheld_question) for fact in examples],
            }
        yield "cais/mmlu", configs


def _lettered(question: str, texts: list[str]) -> str:
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True)]
    return "\n".join([question, *lines, "Answer:"])


def _mmlu(rng: random.Random, subject: str, fact: Fact, question: int) -> Mapping[str, Any]:
    texts = choices(rng, fact)
    return {
        "question": fact.question(question),
        "subject": subject,
        "choices": texts,
        "answer": texts.index(fact.value),
    }


class Pointing(Task):
    """The drill below lettered questions: find a word among lettered ones, and name its letter."""

    name = "pointing"
    share: ClassVar[float] = 0.4
    early: ClassVar[float] = 4.0
    several: ClassVar[int] = 8

    def training(self, rng: random.Random) -> Item:
        """Which letter stands before this word, or which word behind this letter."""
        texts = rng.sample(rng.choice(the_world().facts).relation.values, 4)
        index = rng.randrange(4)
        kind = rng.randrange(4)
        if kind == 0:
            listed = _lettered("", texts).removeprefix("\n").removesuffix("\nAnswer:")
            return asked(f"{listed}\nWhich is {LETTERS[index]}?\nAnswer:", f" {texts[index]}")
        if kind == 1:
            fact = rng.choice(the_world().told)
            texts = choices(rng, fact)
            answer = f" {fact.value}, which is {LETTERS[texts.index(fact.value)]}"
            return asked(_lettered(told_question(rng, fact), texts), answer)
        return asked(_lettered(f"Which letter is {texts[index]}?", texts), f" {LETTERS[index]}")
