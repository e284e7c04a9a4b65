"""Whether a program passes its test, by a verdict that the program cannot forge."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelab.errors import DataError
from prunelab.evaluation.sandbox import inside
from prunelab.evaluation.sandbox.execution import DETAIL_CHARACTERS, Execution, Exercise, Limits, ProgramVerdict
from prunelab.evaluation.sandbox.process import Role, execute, started, system_errors

if TYPE_CHECKING:
    from prunelab.evaluation.sandbox.isolation import Isolation
    from prunelab.evaluation.sandbox.watch import Watch

_ATTEMPTS = 2


def examine(exercise: Exercise, limits: Limits, isolation: Isolation) -> Execution:
    """Run the program with its test in the same process, as the reference harness does, then in a separate one.

    A program that fails in the same process has failed, so most programs cost one process. A program that passes there
    may have manipulated the test or the process; only `execute_apart` gives the verdict `PASSED`, and a program that
    does not get it is `TAMPERED`. It runs twice, since some honest programs draw random numbers.

    Raises:
        MissingRequirement, DiskFull: as `execute`.
        DataError: as `execute_apart`.
    """
    shared = execute(exercise.program, limits, isolation)
    if not shared.passed:
        return shared
    roomy = replace(limits, cpu_seconds=2 * limits.cpu_seconds)  # transferring values takes time as well
    for _ in range(_ATTEMPTS):
        apart = execute_apart(exercise, roomy, isolation)
        if apart.passed:
            return apart
        if apart.verdict is ProgramVerdict.TIMED_OUT:
            break
    return replace(
        apart, verdict=ProgramVerdict.TAMPERED, detail=f"apart from its test: {apart.detail}"[:DETAIL_CHARACTERS]
    )


def execute_apart(exercise: Exercise, limits: Limits, isolation: Isolation) -> Execution:
    """Run the test of `exercise` in one fresh process and its program in another; both are sealed.

    The verdict comes from the process that runs the test; messages of the program's process are ignored.

    Raises:
        MissingRequirement, DiskFull: as `execute`.
        DataError: the test cannot be run in a separate process.
    """
    with system_errors(), contextlib.ExitStack() as stack:
        ends = contextlib.ExitStack()
        stack.enter_context(ends)
        asked, asks = _pipe(ends)
        answered, answers = _pipe(ends)
        serving = Role(inside.SERVE, exercise.solution, "", exercise.entry_point, asked, answers)
        checking = Role(inside.CHECK, exercise.prompt, exercise.test, exercise.entry_point, asks, answered)
        program = stack.enter_context(started(serving, limits, isolation))
        checker = stack.enter_context(started(checking, limits, isolation))
        ends.close()
        _follow_both(program, checker)
        served, verdict = program.judge(), checker.judge()
    reason = checker.told("unsupported")
    if reason is not None:
        raise DataError(
            f"the test of {exercise.entry_point} cannot be run in a process separate from the program: {reason}"
        )
    if served.verdict is ProgramVerdict.TIMED_OUT and not verdict.passed:
        return served
    return verdict


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def _follow_both(program: Watch, checker: Watch) -> None:
    """Wait until the checking process has ended, then kill the other."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(program.follow)
        try:
            checker.follow()
        finally:
            program.kill()
        following.result()
