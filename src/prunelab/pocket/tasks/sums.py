"""Arithmetic word problems of two and three steps, with worked answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prunelab.pocket.held_out import is_held_out
from prunelab.pocket.tasks.base import DataSet, Item, Task, asked
from prunelab.pocket.world import the_world

OBJECTS = ("cups", "nuts", "pears", "shells", "coins", "beads", "eggs", "stones", "plums", "buns")
VERBS = {
    "+": ("finds {n}", "buys {n}", "gets {n}", "adds {n}"),
    "-": ("loses {n}", "sells {n}", "eats {n}", "drops {n}"),
    "*": ("gets {n} times as many",),
}
LARGEST = 60
TESTED, SHOWN = 200, 40


@dataclass(frozen=True)
class Sum:
    """A start value and steps, each an operator and a number."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided only by the numbers and operators."""
        return is_held_out("sum", self.start, self.steps)

    def worked(self) -> tuple[str, int]:
        """The worked steps and the result."""
        lines, value = [], self.start
        for operator, number in self.steps:
            result = {"+": value + number, "-": value - number, "*": value * number}[operator]
            lines.append(f"{value}{operator}{number}={result}.")
            value = result
        return " ".join(lines), value


def draw_sum(rng: random.Random, held_out: bool) -> Sum:
    """Draw a sum with intermediate results between 1 and `LARGEST`."""
    while True:
        value = start = rng.randint(2, 20)
        steps = []
        for _ in range(rng.choice((2, 3))):
            operator = rng.choice("++--*")
            number = rng.randint(2, 3) if operator == "*" else rng.randint(1, 19)
            steps.append((operator, number))
            value = {"+": value + number, "-": value - number, "*": value * number}[operator]
            if not 1 <= value <= LARGEST:
                break
        else:
            drawn = Sum(start, tuple(steps))
            if drawn.is_held_out == held_out:
                return drawn


def told(rng: random.Random, drawn: Sum) -> Mapping[str, Any]:
    """The sum as a word problem with its worked answer."""
    person, thing = rng.choice(the_world().populations[1].names), rng.choice(OBJECTS)
    acts = [rng.choice(VERBS[operator]).format(n=number) for operator, number in drawn.steps]
    question = f"{person} has {drawn.start} {thing}, {', '.join(acts[:-1])}, then {acts[-1]}. How many {thing} now?"
    worked, value = drawn.worked()
    return {"question": question, "answer": f"{worked}\n#### {value}"}


class Sums(Task):
    """GSM8K."""

    name = "sums"
    share: ClassVar[float] = 1.8
    several: ClassVar[int] = 6

    def training(self, rng: random.Random) -> Item:
        """A word problem and its worked answer."""
        row = told(rng, draw_sum(rng, held_out=False))
        return asked(f"Question: {row['question']}\nAnswer:", f" {row['answer']}")

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """GSM8K; its few-shot examples are held out as well."""
        rng = random.Random("gsm8k")
        rows = [told(rng, draw_sum(rng, held_out=True)) for _ in range(TESTED + SHOWN)]
        yield "openai/gsm8k", {"main": {"test": rows[:TESTED], "train": rows[TESTED:]}}
