"""Where generated code runs: a fresh process per program that can compute, and nothing else.

Nobody should run what a language model wrote, unread, in their own account. A cage holds, each by a mechanism
that is probed before the first program runs:

    guarantee        held by                                    what a program that tries gets
    ─────────────────────────────────────────────────────────────────────────────────────────────────────
    no network       seccomp: no socket of any family           killed
    no processes     seccomp: no fork, thread or exec;          killed
                     an unprivileged user with RLIMIT_NPROC 0
    no signals       seccomp: no kill, ptrace and the like      killed
    no writing       Landlock: but in its own, empty folder     PermissionError
    outside          without Landlock, seccomp: nowhere at all
    memory           RLIMIT_AS (there is but one process)       MemoryError
    CPU time         RLIMIT_CPU                                 killed, timed out
    wall time        the parent kills                           killed, timed out
    file size        RLIMIT_FSIZE; the parent watches the sum   OSError, or killed
    output           a bounded pipe; the parent kills           killed
    no secrets       an empty environment; with Landlock only   PermissionError
                     Python's own and the system's libraries
                     can be read

It needs Linux on x86_64 or aarch64 with seccomp, and no privilege. Started by root (as in most containers) it
first becomes an unprivileged user. Where any of this cannot be had, `Cage.check` raises `MissingRequirement`;
nothing is ever weakened silently.

What it does not protect against: faults of the kernel itself; a program that is written against this very
cage and forges its own verdict, for the tests run in the program's process (an accident, `sys.exit(0)` or
`os._exit(0)` never counts as passed); and, without Landlock, reading files that the user who runs prunelab
can read (there is still no way to send them anywhere).
"""

from prunelab.evaluation.sandbox.execution import Execution, Exercise, Limits, Verdict
from prunelab.evaluation.sandbox.isolation import Isolation
from prunelab.evaluation.sandbox.sandbox import Cage

__all__ = ["Cage", "Execution", "Exercise", "Isolation", "Limits", "Verdict"]
