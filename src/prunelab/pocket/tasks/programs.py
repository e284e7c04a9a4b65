"""Small functions with descriptions and tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prunelab.pocket.held_out import is_held_out
from prunelab.pocket.tasks.base import DataSet, Item, Task, asked

PROBLEMS = 120
NAMES = ("compute", "solve", "convert", "change", "handle", "make", "work", "answer")


@dataclass(frozen=True)
class Operation:
    """One step of a function.

    Attributes:
        takes: type of the argument: `number`, `text` or `numbers`.
        gives: type of the result.
        told: description, with `{n}` for its number if it has one.
        code: Python expression of `{x}`.
        apply: the function.
    """

    takes: str
    gives: str
    told: str
    code: str
    apply: Callable[[Any, int], Any]

    @property
    def has_number(self) -> bool:
        """Whether the operation has a number."""
        return "{n}" in self.told


OPERATIONS = (
    Operation("number", "number", "add {n}", "{x} + {n}", lambda x, n: x + n),
    Operation("number", "number", "subtract {n}", "{x} - {n}", lambda x, n: x - n),
    Operation("number", "number", "multiply by {n}", "{x} * {n}", lambda x, n: x * n),
    Operation("number", "number", "take the remainder of {n}", "{x} % {n}", lambda x, n: x % n),
    Operation("number", "number", "negate", "-{x}", lambda x, n: -x),
    Operation("number", "number", "square", "{x} ** 2", lambda x, n: x**2),
    Operation("text", "text", "reverse", "{x}[::-1]", lambda x, n: x[::-1]),
    Operation("text", "text", "raise to upper case", "{x}.upper()", lambda x, n: x.upper()),
    Operation("text", "text", "repeat {n} times", "{x} * {n}", lambda x, n: x * n),
    Operation("text", "text", "take the first {n}", "{x}[:{n}]", lambda x, n: x[:n]),
    Operation("text", "text", "drop the first {n}", "{x}[{n}:]", lambda x, n: x[n:]),
    Operation("text", "number", "count", "len({x})", lambda x, n: len(x)),
    Operation("numbers", "numbers", "sort", "sorted({x})", lambda x, n: sorted(x)),
    Operation("numbers", "numbers", "reverse", "{x}[::-1]", lambda x, n: x[::-1]),
    Operation("numbers", "numbers", "take the first {n}", "{x}[:{n}]", lambda x, n: x[:n]),
    Operation("numbers", "numbers", "drop the first {n}", "{x}[{n}:]", lambda x, n: x[n:]),
    Operation("numbers", "number", "take the sum", "sum({x})", lambda x, n: sum(x)),
    Operation("numbers", "number", "take the largest", "max({x})", lambda x, n: max(x)),
    Operation("numbers", "number", "take the smallest", "min({x})", lambda x, n: min(x)),
    Operation("numbers", "number", "count", "len({x})", lambda x, n: len(x)),
)
ARGUMENTS: Mapping[str, Sequence[Any]] = {
    "number": (0, 1, 4, 7, 12),
    "text": ("abcdef", "Zebra!", "prune", "lab tests"),
    "numbers": ([3, 1, 2, 9, 5, 7], [8, 8, 0, 4, 6, 1], [10, 2, 30, 4, 50, 6]),
}
VARIABLES = {"number": "x", "text": "text", "numbers": "items"}


@dataclass(frozen=True)
class Program:
    """Two successive operations, each with its number."""

    first: Operation
    first_number: int
    second: Operation
    second_number: int
    name: str

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided by the operations and their numbers, not by the function's name."""
        steps = [
            (step.takes, step.told, number if step.has_number else None)
            for step, number in ((self.first, self.first_number), (self.second, self.second_number))
        ]
        return is_held_out("program", *steps)

    @property
    def head(self) -> str:
        """Signature and description."""
        descriptions = [
            self.first.told.format(n=self.first_number),
            self.second.told.format(n=self.second_number),
        ]
        variable = VARIABLES[self.first.takes]
        return f'def {self.name}({variable}):\n    """To {variable}: {descriptions[0]}, then {descriptions[1]}."""\n'

    @property
    def body(self) -> str:
        """A solution, one line per step."""
        variable = VARIABLES[self.first.takes]
        first = self.first.code.format(x=variable, n=self.first_number)
        second = self.second.code.format(x="y", n=self.second_number)
        return f"    y = {first}\n    return {second}\n"

    def run(self, argument: Any) -> Any:
        """The correct result."""
        return self.second.apply(self.first.apply(argument, self.first_number), self.second_number)

    def test(self) -> str:
        """HumanEval's `check`."""
        cases = [
            f"    assert candidate({argument!r}) == {self.run(argument)!r}" for argument in ARGUMENTS[self.first.takes]
        ]
        return "\n".join(["def check(candidate):", *cases, ""])


def draw_program(rng: random.Random, held_out: bool) -> Program:
    """Draw a program for training or for the benchmark."""
    while True:
        first = rng.choice(OPERATIONS)
        second = rng.choice([step for step in OPERATIONS if step.takes == first.gives and step is not first])
        drawn = Program(first, rng.randint(2, 5), second, rng.randint(2, 5), rng.choice(NAMES))
        if drawn.is_held_out == held_out:
            return drawn


class Programs(Task):
    """HumanEval."""

    name = "programs"
    share: ClassVar[float] = 0.7
    several: ClassVar[int] = 4

    def training(self, rng: random.Random) -> Item:
        """A function head and its body."""
        program = draw_program(rng, held_out=False)
        return asked(program.head, program.body)

    def data_sets(self) -> Iterator[tuple[str, DataSet]]:
        """HumanEval, with distinct problems."""
        rng = random.Random("humaneval")
        programs: dict[str, Program] = {}
        while len(programs) < PROBLEMS:
            program = draw_program(rng, held_out=True)
            programs.setdefault(program.body + program.first.takes, program)
        rows = [_humaneval(index, program) for index, program in enumerate(programs.values())]
        yield "openai/openai_humaneval", {"openai_humaneval": {"test": rows}}


def _humaneval(index: int, program: Program) -> Mapping[str, Any]:
    return {
        "task_id": f"HumanEval/{index}",
        "prompt": program.head,
        "canonical_solution": program.body,
        "test": program.test(),
        "entry_point": program.name,
    }
