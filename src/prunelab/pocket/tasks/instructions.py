"""Verifiable instructions of IFEval's types."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prunelab.pocket.held_out import is_held_out
from prunelab.pocket.tasks.base import DataSet, Item, Task, asked
from prunelab.pocket.world import Fact, the_world

PROMPTS = 200
ENDINGS = ("That is all.", "Ask me more.", "Here it ends.", "So they say.")
WORDS = ("indeed", "truly", "surely", "often", "gladly", "perhaps")

INSTRUCT = "<|instruct|>"
RESPOND = "<|respond|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    f"{RESPOND}" + "{{ message['content'] }}{{ eos_token }}"
    "{% else %}" + f"{INSTRUCT}" + "{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + f"{RESPOND}" + "{% endif %}"
)


@dataclass(frozen=True)
class Instruction:
    """One constraint on a response.

    Attributes:
        kind: IFEval's identifier.
        arguments: arguments of IFEval's verifier.
        told: the instruction in the prompt.
    """

    kind: str
    arguments: Mapping[str, Any]
    told: str


@dataclass(frozen=True)
class Order:
    """A prompt with one or two instructions, and a response that follows them."""

    facts: tuple[Fact, ...]
    instructions: tuple[Instruction, ...]
    response: str

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided by the entity and the instructions."""
        instructions = [instruction.told for instruction in self.instructions]
        return is_held_out("order", self.facts[0].entity, *instructions)

    @property
    def prompt(self) -> str:
        """The prompt's text."""
        return " ".join(
            [f"Tell me about {self.facts[0].subject}.", *(instruction.told for instruction in self.instructions)]
        )


Form = Callable[[random.Random, Sequence[Fact], Sequence[str]], tuple[Instruction, str] | None]
"""Maps facts and their statements to an instruction and a draft that follows it; None if they are unsuitable."""


def _bullets(rng: random.Random, facts: Sequence[Fact], statements: Sequence[str]) -> tuple[Instruction, str]:
    count = rng.randint(2, 4)
    text = f"Write {count} bullet points."
    draft = "\n".join(f"* {line}" for line in statements[:count])
    return Instruction("detectable_format:number_bullet_lists", {"num_bullets": count}, text), draft


def _forbidden(rng: random.Random, facts: Sequence[Fact], statements: Sequence[str]) -> tuple[Instruction, str] | None:
    word = facts[0].predicate(rng.randrange(3)).split()[0]
    avoiding = next((index for index in range(3) if word not in facts[0].predicate(index).split()), None)
    if avoiding is None or word in ("is", "has"):
        return None
    unaffected = [line for line in statements[1:2] if word not in line.split()]
    draft = " ".join([facts[0].statement(avoiding), *unaffected])
    text = f"Do not use the word {word}."
    return Instruction("keywords:forbidden_words", {"forbidden_words": [word]}, text), draft


def _existence(rng: random.Random, facts: Sequence[Fact], statements: Sequence[str]) -> tuple[Instruction, str]:
    words = rng.sample(WORDS, 2)
    text = f"Use the words {words[0]} and {words[1]}."
    draft = f"{words[0].capitalize()} and {words[1]}: {statements[0]}"
    return Instruction("keywords:existence", {"keywords": words}, text), draft


def _frequency(rng: random.Random, facts: Sequence[Fact], statements: Sequence[str]) -> tuple[Instruction, str]:
    word, count = rng.choice(WORDS), rng.randint(2, 4)
    text = f"Use the word {word} at least {count} times."
    arguments = {"keyword": word, "frequency": count, "relation": "at least"}
    return Instruction(
        "keywords:frequency", arguments, text
    ), f"{' '.join([word] * count).capitalize()}, {statements[0]}"


def _words(rng: random.Random, facts: Sequence[Fact], statements: Sequence[str]) -> tuple[Instruction, str] | None:
    count = rng.choice((10, 15, 20))
    draft = statements[0]
    for line in statements[1:]:
        if len(draft.split()) < count + 2:
            draft += f" {line}"
    if len(draft.split()) < count:
        return None
    text = f"Write at least {count} words."
    return Instruction("length_constraints:number_words", {"num_words": count, "relation": "at least"}, text), draft


def _first(rng: random.Random, facts: Sequence[Fact], statements: Sequence[str]) -> tuple[Instruction, str]:
    word = rng.choice(WORDS)
    text = f"Begin with the word {word}."
    arguments = {"first_word": word, "num_paragraphs": 1, "nth_paragraph": 1}
    kind = "length_constraints:nth_paragraph_first_word"
    return Instruction(kind, arguments, text), f"{word.capitalize()}, {statements[0]}"


_FORMS: tuple[Form | None, ...] = (_bullets, _forbidden, _existence, _frequency, _words, _first, None)
"""Instructions on the form of the response; None for no such instruction."""


def _lowered(draft: str) -> str:
    """Add a sentence, since IFEval's verifier must detect English, which it cannot in invented names."""
    return f"{draft.lower()} this is what people say about it."


def _finish(rng: random.Random, opened: bool) -> tuple[Instruction, Callable[[str], str]] | None:
    """A transformation of the draft: its end or its case, and, unless already fixed, its beginning."""
    kind = rng.choice(("end", "lower", "none") if opened else ("end", "lower", "quotation", "title", "none"))
    if kind == "end":
        phrase = rng.choice(ENDINGS)
        text = f"End with the words: {phrase}"
        return Instruction("startend:end_checker", {"end_phrase": phrase}, text), lambda draft: f"{draft} {phrase}"
    if kind == "lower":
        return Instruction("change_case:english_lowercase", {}, "Use small letters only."), _lowered
    if kind == "quotation":
        return Instruction("startend:quotation", {}, "Put it in double quotes."), lambda draft: f'"{draft}"'
    if kind == "title":
        return Instruction("detectable_format:title", {}, "Give it a title."), lambda draft: f"<<Note>>\n{draft}"
    return None


def draw_order(rng: random.Random, held_out: bool) -> Order:
    """Draw an order for training or for the benchmark."""
    while True:
        fact = rng.choice(the_world().told)
        about = the_world().told_of[fact.entity]
        facts = rng.sample(about, min(len(about), 5))
        statements = [item.statement(rng.randrange(3)) for item in facts]
        form = rng.choice(_FORMS)
        formed = form(rng, facts, statements) if form else None
        instructions, draft = ([formed[0]], formed[1]) if formed else ([], " ".join(statements[:2]))
        finish = _finish(rng, opened=form in (_first, _bullets))
        if finish is not None:
            instructions.append(finish[0])
            draft = finish[1](draft)
        order = Order(tuple(facts), tuple(instructions), draft)
        if instructions and order.is_held_out == held_out:
            return order


class Instructions(Task):
    """IFEval, with prompts in the models' chat template."""

    name = "instructions"
    share: ClassVar[float] = 1.2
    several: ClassVar[int] = 1

    def training(self, rng: random.Random) -> Item:
        """A prompt and a response."""
        order = draw_order(rng, held_out=False)
        return asked(f"{INSTRUCT}{order.prompt}{RESPOND}", order.response)

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """IFEval, with distinct prompts."""
        rng = random.Random("ifeval")
        orders: dict[str, Order] = {}
        while len(orders) < PROMPTS:
            order = draw_order(rng, held_out=True)
            orders.setdefault(order.prompt, order)
        keys = sorted(
            {key for order in orders.values() for instruction in order.instructions for key in instruction.arguments}
        )
        rows = [_ifeval(index, order, keys) for index, order in enumerate(orders.values())]
        yield "google/IFEval", {"default": {"train": rows}}


def _ifeval(index: int, order: Order, keys: Sequence[str]) -> Mapping[str, Any]:
    return {
        "key": 1000 + index,
        "prompt": order.prompt,
        "instruction_id_list": [instruction.kind for instruction in order.instructions],
        "kwargs": [{key: instruction.arguments.get(key) for key in keys} for instruction in order.instructions],
    }
