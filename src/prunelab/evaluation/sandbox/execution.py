"""What a program may use, and how its run ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from prunelab.errors import InvalidRequest

MIB = 1024 * 1024
# CPython with its C libraries mapped takes about 40 MiB of addresses before the program's first line.
LEAST_MEMORY_BYTES = 64 * MIB
DETAIL_CHARACTERS = 200
"""Most that is kept of an exception's text, which the program chooses."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. Raises `InvalidRequest` for a limit that no program could live with.

    The reference harness of HumanEval allows 3 seconds of wall time; we bound CPU time instead. The wall clock only
    ends what waits for ever: at a load of 10 on one processor, 5 seconds of CPU time take about a minute.
    """

    cpu_seconds: int = 5
    """Processor time, whole seconds, the interpreter's start (some hundredths) included."""
    wall_seconds: float = 120.0
    """Time from the program's first line to its end, the wait for the processor included."""
    memory_bytes: int = 512 * MIB
    """Address space of the process, the interpreter included."""
    file_bytes: int = 16 * MIB
    """Largest sum of all files, whether they still have a name or not, to a whole page of memory."""
    output_bytes: int = MIB
    """Most that may be printed to standard output and standard error together."""

    def __post_init__(self) -> None:
        """Refuse what cannot be honoured, before a process is started."""
        if not isinstance(self.cpu_seconds, int) or self.cpu_seconds < 1:
            raise InvalidRequest(f"cpu_seconds is {self.cpu_seconds!r}: give a whole number of seconds, at least 1")
        if not (math.isfinite(self.wall_seconds) and self.wall_seconds > 0):
            raise InvalidRequest(f"wall_seconds is {self.wall_seconds!r}: give a finite number above 0")
        if self.memory_bytes < LEAST_MEMORY_BYTES:
            raise InvalidRequest(
                f"memory_bytes is {self.memory_bytes!r}: Python alone needs {LEAST_MEMORY_BYTES}, give more"
            )
        if self.file_bytes < 0 or self.output_bytes < 0:
            raise InvalidRequest(
                f"file_bytes is {self.file_bytes!r}, output_bytes is {self.output_bytes!r}: give 0 or more"
            )


class ProgramVerdict(StrEnum):
    """How a program ended. Only `PASSED` counts as correct."""

    PASSED = "passed"
    """The program ran to its last line without an exception."""
    FAILED = "failed"
    """It raised an exception, or left before its last line."""
    SYNTAX_ERROR = "syntax_error"
    """It did not compile; not a line of it ran."""
    TIMED_OUT = "timed_out"
    """It used up its CPU time or its wall time."""
    KILLED = "killed"
    """It tried what the cage forbids, printed too much, or crashed the interpreter."""
    TAMPERED = "tampered"
    """It passes where its tests share its process, as in the reference harness, and fails where they do not."""


@dataclass(frozen=True)
class Exercise:
    """A function that was written from its prompt, and the test that it is to pass."""

    prompt: str
    """Imports and helpers, then the beginning of the function, up to where the completion begins."""
    completion: str
    test: str
    """Defines `check(candidate)`, which raises where the function is wrong."""
    entry_point: str
    """The function's name."""

    @property
    def solution(self) -> str:
        """The program without its test."""
        return self.prompt + self.completion

    @property
    def program(self) -> str:
        """The program as the reference harness runs it: with its test, and the call of the test, in one process."""
        return f"{self.solution}\n{self.test}\ncheck({self.entry_point})"


@dataclass(frozen=True)
class Execution:
    """One run of one program."""

    verdict: ProgramVerdict
    seconds: float
    """Wall time of the program, without the start of its process."""
    detail: str
    """One short printable line: the exception ("AssertionError: ..."), limit or signal; "" if it passed."""

    @property
    def passed(self) -> bool:
        """Whether the program counts as correct."""
        return self.verdict is ProgramVerdict.PASSED
