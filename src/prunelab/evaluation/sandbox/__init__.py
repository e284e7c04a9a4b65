"""A sandbox for generated code: each program runs in a fresh process that can compute and nothing else.

Code that a language model generated must not run unread with a user's permissions. Each guarantee is enforced by a
mechanism that is probed before the first program runs:

    guarantee        enforced by                                result of an attempt
    ─────────────────────────────────────────────────────────────────────────────────────────────────────
    no network       seccomp: no socket of any family           killed
    no processes     seccomp: no fork, thread or exec;          killed
                     an unprivileged user with RLIMIT_NPROC 0
    no signals       seccomp: no kill, ptrace and the like      killed
    no reading       Landlock: only Python's and the            PermissionError
    outside          system's libraries; an empty environment
    no writing       Landlock: only its empty working folder    PermissionError
    outside
    files            its folder is an in-memory file system of   OSError
                     limited size, private to the process; if
                     none can be mounted, seccomp: no writing
    memory           RLIMIT_AS (of the only process)            MemoryError
    CPU time         RLIMIT_CPU                                 killed, timed out
    wall time        the parent kills, well above CPU time      killed, timed out
    output           a bounded pipe; the parent kills           killed
    the verdict      the test runs in a separate process        tampered
                     and calls the program with plain values

It requires Linux 5.13 or later on x86_64 or aarch64 with seccomp and Landlock, and no privileges. Started by root (as
in most containers) it first switches to an unprivileged user. If a mechanism is missing, `Sandbox.check` raises
`MissingRequirement`; no guarantee is weakened silently.

It does not protect against vulnerabilities of the kernel or the processor. SECURITY.md has the full list.
"""

from prunelab.evaluation.sandbox.execution import Execution, Exercise, Limits, ProgramVerdict
from prunelab.evaluation.sandbox.isolation import Isolation
from prunelab.evaluation.sandbox.sandbox import Sandbox

__all__ = ["Execution", "Exercise", "Isolation", "Limits", "ProgramVerdict", "Sandbox"]
