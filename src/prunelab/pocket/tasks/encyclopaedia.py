"""Pages about the world with known entropy, since every choice in them is a uniform draw."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar

from prunelab.pocket.held_out import is_held_out
from prunelab.pocket.tasks.base import DataSet, Item, Piece, Task
from prunelab.pocket.world import Population, capital, the_world

EVENTS = (
    "One day {x} met {y} near the {place}.",
    "Long ago {x} saw {y} by the {place}.",
    "They say that {x} once followed {y} to the {place}.",
)
PLACES = ("bridge", "well", "road", "harbour", "tower", "orchard", "ford", "ruin")
SENTENCES = (3, 4, 5)
PAGES = {"train": 2500, "validation": 150, "test": 300}

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        title: heading of the page.
        text: paragraph below the heading.
        nats: negative log-probability of drawing the page.
    """

    title: str
    text: str
    nats: float

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided by the page's entire content."""
        return is_held_out("page", self.title, self.text)

    @property
    def lines(self) -> tuple[str, str]:
        """The page's lines as in the dataset."""
        return (f"= {self.title} =", self.text)


class _Draws:
    """Uniform draws, with their entropy in nats."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nats = 0.0

    def one_of(self, options: Sequence[Choice]) -> Choice:
        self.nats += math.log(len(options))
        return self.rng.choice(options)


@cache
def _entities() -> tuple[tuple[Population, str], ...]:
    return tuple((population, name) for population in the_world().populations for name in population.names)


def draw_page(rng: random.Random, held_out: bool) -> Page:
    """Draw a page for training or for the benchmark."""
    while True:
        page = _draw(_Draws(rng))
        if page.is_held_out == held_out:
            return page


def _draw(draws: _Draws) -> Page:
    population, entity = draws.one_of(_entities())
    subject = population.phrase.format(entity)
    left = list(the_world().told_of[entity])
    sentences = []
    for index in range(draws.one_of(SENTENCES)):
        fact = draws.one_of(left)
        left.remove(fact)
        mention = draws.one_of((subject, population.pronoun)) if index else subject
        sentences.append(fact.statement(draws.one_of(range(3)), mention))
    other = draws.one_of([name for name in population.names if name != entity])
    event = draws.one_of(EVENTS).format(x=subject, y=population.phrase.format(other), place=draws.one_of(PLACES))
    return Page(capital(subject), " ".join([*sentences, capital(event)]), draws.nats)


def nats_of(split: str) -> float:
    """The entropy of a split's pages in nats."""
    return sum(page.nats for page in pages(split))


@cache
def pages(split: str) -> tuple[Page, ...]:
    """The dataset's pages; those of `train`, used for calibration, are not held out of training."""
    rng = random.Random(f"wikitext {split}")
    return tuple(draw_page(rng, held_out=split != "train") for _ in range(PAGES[split]))


class Encyclopaedia(Task):
    """WikiText-2: a sequence of pages."""

    name = "encyclopaedia"
    share: ClassVar[float] = 1.6
    early: ClassVar[float] = 0.7
    several: ClassVar[int] = 5

    def training(self, rng: random.Random) -> Item:
        """One page."""
        return [Piece("\n\n".join(draw_page(rng, held_out=False).lines))]

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """The same pages as lines and as documents."""
        lines: dict[str, list[dict[str, Any]]] = {}
        documents: dict[str, list[dict[str, Any]]] = {}
        for split in PAGES:
            lines[split] = [{"text": line} for page in pages(split) for line in page.lines]
            documents[split] = [{"page": "\n\n".join(page.lines)} for page in pages(split)]
        yield "Salesforce/wikitext", {"wikitext-2-raw-v1": lines}
        yield "EleutherAI/wikitext_document_level", {"wikitext-2-raw-v1": documents}
