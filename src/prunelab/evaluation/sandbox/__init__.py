"""A sandbox for generated code: a fresh process per program that can compute, and nothing else.

Nobody should run what a language model wrote, unread, in their own account. Each guarantee is held by a mechanism that
is probed before the first program runs:

    guarantee        held by                                    what a program that tries gets
    ─────────────────────────────────────────────────────────────────────────────────────────────────────
    no network       seccomp: no socket of any family           killed
    no processes     seccomp: no fork, thread or exec;          killed
                     an unprivileged user with RLIMIT_NPROC 0
    no signals       seccomp: no kill, ptrace and the like      killed
    no reading       Landlock: only Python's own and the        PermissionError
    outside          system's libraries; an empty environment
    no writing       Landlock: only its own, empty folder       PermissionError
    outside
    files            its folder is a file system in memory of   OSError
                     limited size, seen by it alone; where none
                     can be mounted, seccomp: no writing at all
    memory           RLIMIT_AS (there is but one process)       MemoryError
    CPU time         RLIMIT_CPU                                 killed, timed out
    wall time        the parent kills, far behind CPU time      killed, timed out
    output           a bounded pipe; the parent kills           killed
    its verdict      the test runs in a process of its own,     tampered
                     and calls the program with plain values

It needs Linux 5.13 or later on x86_64 or aarch64 with seccomp and Landlock, and no privilege. Started by root (as in
most containers) it first becomes an unprivileged user. Where any of this cannot be had, `Sandbox.check` raises
`MissingRequirement`; nothing is ever weakened silently.

It does not protect against faults of the kernel or the processor. SECURITY.md has the whole list.
"""

from prunelab.evaluation.sandbox.execution import Execution, Exercise, Limits, ProgramVerdict
from prunelab.evaluation.sandbox.isolation import Isolation
from prunelab.evaluation.sandbox.sandbox import Sandbox

__all__ = ["Execution", "Exercise", "Isolation", "Limits", "ProgramVerdict", "Sandbox"]
