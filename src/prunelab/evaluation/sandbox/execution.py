"""Limits of a program, and the result of its run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from prunelab.errors import InvalidRequest

MIB = 1024 * 1024
# CPython and its C libraries map about 40 MiB of address space before the program's first line.
LEAST_MEMORY_BYTES = 64 * MIB
DETAIL_CHARACTERS = 200
"""Maximum length of an exception's text, which the program controls."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program.

    The reference harness of HumanEval allows 3 seconds of wall time; this sandbox limits CPU time instead. The wall
    time
    limit only ends programs that wait forever: at a load of 10 on one processor, 5 seconds of CPU time take about a
    minute.

    Raises:
        InvalidRequest: no program could run within a limit.
    """

    cpu_seconds: int = 5
    """CPU time in whole seconds, including the start of the interpreter (a few hundredths of a second)."""
    wall_seconds: float = 120.0
    """Wall time in seconds from the program's first line to its end, including waiting for the processor."""
    memory_bytes: int = 512 * MIB
    """Address space of the process in bytes, including the interpreter."""
    file_bytes: int = 16 * MIB
    """Maximum total size of all files in bytes, named or deleted, rounded up to whole pages."""
    output_bytes: int = MIB
    """Maximum number of bytes printed to standard output plus standard error."""

    def __post_init__(self) -> None:
        """Check the limits before a process is started."""
        if not isinstance(self.cpu_seconds, int) or self.cpu_seconds < 1:
            raise InvalidRequest(f"cpu_seconds is {self.cpu_seconds!r}: give a whole number of seconds, at least 1")
        if not (math.isfinite(self.wall_seconds) and self.wall_seconds > 0):
            raise InvalidRequest(f"wall_seconds is {self.wall_seconds!r}: give a finite number above 0")
        if self.memory_bytes < LEAST_MEMORY_BYTES:
            raise InvalidRequest(
                f"memory_bytes is {self.memory_bytes!r}: Python alone needs {LEAST_MEMORY_BYTES}; give more"
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
    """It made a forbidden system call, exceeded the output limit, or crashed the interpreter."""
    TAMPERED = "tampered"
    """It passes with its test in the same process, as in the reference harness, and fails with it in another."""


@dataclass(frozen=True)
class Exercise:
    """A completed function and its test."""

    prompt: str
    """Imports and helpers, then the beginning of the function, which the completion continues."""
    completion: str
    test: str
    """Defines `check(candidate)`, which raises if the function is wrong."""
    entry_point: str
    """The function's name."""

    @property
    def solution(self) -> str:
        """The program without its test."""
        return self.prompt + self.completion

    @property
    def program(self) -> str:
        """The program as in the reference harness: with its test and the call of the test in one process."""
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
