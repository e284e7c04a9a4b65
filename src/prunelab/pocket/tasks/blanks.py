"""WinoGrande-style blanks: a fact decides which of two entities fills the gap."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from prunelab.pocket.held_out import is_held_out
from prunelab.pocket.tasks.base import DataSet, Item, Piece, Task
from prunelab.pocket.world import Fact, capital, the_world

FRAMES = (
    "{a} and {b} were there, and _ {rest}.",
    "we saw {a} near {b}, and _ {rest}.",
    "{a} is not {b}, because _ {rest}.",
    "of {a} and {b} we know that _ {rest}.",
    "take {a} rather than {b}, since _ {rest}.",
)
ITEMS = 600


@dataclass(frozen=True)
class Blank:
    """A sentence with a gap and two candidates; the first fact is the true one."""

    true: Fact
    other: Fact
    frame: str
    true_first: bool
    predicate: int

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided by the pair and the relation, independent of order and wording."""
        pair = sorted((self.true.entity, self.other.entity))
        return is_held_out("blank", *pair, self.true.relation.name)

    @property
    def options(self) -> tuple[str, str]:
        """The candidates in the order of the sentence."""
        both = (self.true.subject, self.other.subject)
        return both if self.true_first else (both[1], both[0])

    @property
    def sentence(self) -> str:
        """The sentence with `_` for the gap."""
        first, second = self.options
        return capital(self.frame.format(a=first, b=second, rest=self.true.predicate(self.predicate)))


@cache
def _by_relation() -> dict[str, list[Fact]]:
    by_relation: dict[str, list[Fact]] = {}
    for fact in the_world().direct:
        by_relation.setdefault(fact.relation.name, []).append(fact)
    return by_relation


def draw_blank(rng: random.Random, held_out: bool) -> Blank:
    """Draw a sentence for training or for the benchmark."""
    facts = _by_relation()
    names = list(facts)
    while True:
        true, second_fact = rng.sample(facts[rng.choice(names)], 2)
        if true.value == second_fact.value:
            continue
        blank = Blank(true, second_fact, rng.choice(FRAMES), rng.random() < 0.5, rng.randrange(3))
        if blank.is_held_out == held_out:
            return blank


class Blanks(Task):
    """WinoGrande: the sentence with the true candidate filled in."""

    name = "blanks"
    share: ClassVar[float] = 0.8
    several: ClassVar[int] = 6

    def training(self, rng: random.Random) -> Item:
        """The text after the gap is the answer, since the benchmark scores it."""
        blank = draw_blank(rng, held_out=False)
        before, after = blank.sentence.split("_")
        return [Piece(before + blank.true.subject), Piece(after, is_answer=True)]

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """WinoGrande."""
        rng = random.Random("winogrande")
        rows = [_winogrande(draw_blank(rng, held_out=True)) for _ in range(ITEMS)]
        yield "allenai/winogrande", {"winogrande_xl": {"validation": rows}}


def _winogrande(blank: Blank) -> Mapping[str, Any]:
    first, second = blank.options
    return {
        "sentence": blank.sentence,
        "option1": first,
        "option2": second,
        "answer": "1" if blank.true_first else "2",
    }
