"""The first code that runs in the fresh process: it seals the process, then takes the role that its job names.

This file runs as a script under a bare interpreter, so it imports nothing of prunelab, and for every program
anew, so it imports nothing that takes long (`typing` and `json` would double the start). What else it needs comes with
the job, compiled. Sealing cannot be undone, and the program is not even compiled before it is complete.
"""

from __future__ import annotations

import marshal
import os
import sys
import types

FLAGS = ("-P", "-s", "-S", "-B")  # of the interpreter that runs this file
_DETAIL_CHARACTERS = 200
RUN, SERVE, CHECK = "run", "serve", "check"
_DETAIL_CHARACTERS = 200


class Job:
    """What the parent hands to the fresh process, marshalled on its standard input.

    role                RUN: run `program` alone; SERVE: run it and answer calls of its `entry_point`;
                        CHECK: run `test`, with an entry point that calls the process that serves
    program             the source of the program; for CHECK the definitions that the test may use
    test                the source of the test, for CHECK
    entry_point         the function under test, for SERVE and CHECK
    requests, replies   descriptors between the process that checks and the one that serves
    modules             names and code objects: `sealing`, for SERVE and CHECK also `values` and `exchange`
    token               random; begins every message, so that the program's own output is never taken for one
    channel             the descriptor on which messages are sent to the parent
    parent              the parent's process id
    system_call_filter  `seccomp.build_filter`
    landlock_version    what the kernel offers; with 0 nothing runs
    own_files           whether to mount a file system of its own, of `file_bytes`; without, nothing can be written
    unprivileged_user   the user and group to become, when the parent is root
    readable            folders with libraries, which may be read
    """

    def __init__(
        self,
        role: str,
        program: str,
        test: str,
        entry_point: str,
        requests: int,
        replies: int,
        modules: list[tuple[str, types.CodeType]],
        token: str,
        channel: int,
        parent: int,
        system_call_filter: bytes,
        landlock_version: int,
        own_files: bool,
        unprivileged_user: int | None,
        readable: list[str],
        cpu_seconds: int,
        memory_bytes: int,
        file_bytes: int,
    ) -> None:
        self.role = role
        self.program = program
        self.test = test
        self.entry_point = entry_point
        self.requests = requests
        self.replies = replies
        self.modules = modules
        self.token = token
        self.channel = channel
        self.parent = parent
        self.system_call_filter = system_call_filter
        self.landlock_version = landlock_version
        self.own_files = own_files
        self.unprivileged_user = unprivileged_user
        self.readable = readable
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self.file_bytes = file_bytes


def main() -> None:
    """Seal the process, take the job's role, tell the parent how it ended."""
    job = Job(**marshal.load(sys.stdin.buffer))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the job, token and all, must not be there to read again
    write, leave = os.write, os._exit  # the program may put others in their place

    def tell(kind: str, detail: str) -> None:
        write(job.channel, f"\n{job.token} {kind} {detail}\n".encode(errors="backslashreplace"))

    sealing, *others = [_module(name, code) for name, code in job.modules]
    try:
        sealing.seal(job)
    except OSError as error:
        tell("unsealed", str(error))
        leave(1)
    tell("sealed", "")
    tell(*(outcome(job.program) if job.role == RUN else _exchange(job, others[-1])))
    leave(0)


def _module(name: str, code: types.CodeType) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(code, module.__dict__)
    return module


def outcome(program: str) -> tuple[str, str]:
    """Compile and run `program`; a `Verdict`'s value and a line of detail.

    As in HumanEval's own harness the program is not `__main__`, so such a block at its end does not run.
    """
    try:
        code = compile(program, "<completion>", "exec", dont_inherit=True)
    except BaseException as error:  # noqa: BLE001 - the compiler raises more than SyntaxError
        return "syntax_error", _line(error)
    module = types.ModuleType("completion")
    sys.modules["completion"] = module
    try:
        exec(code, module.__dict__)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are no passes either
        return "failed", _line(error)
    return "passed", ""


def _exchange(job: Job, exchange: types.ModuleType) -> tuple[str, str]:
    """Serve, or check what another process serves; only a check that ran to its end has passed."""
    act = exchange.serve if job.role == SERVE else exchange.check
    try:
        act(job)
    except BaseException as error:  # noqa: BLE001 - the program's own, raised again here, may be any
        return ("unsupported" if isinstance(error, exchange.UnsupportedTest) else "failed"), _line(error)
    return ("passed", "") if job.role == CHECK else ("failed", "the checking process ended first")


def _line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = " ".join(str(error)[:_DETAIL_CHARACTERS].split())
    except BaseException:  # noqa: BLE001 - the program's own __str__
        return name
    return f"{name}: {text}" if text else name


if __name__ == "__main__":
    main()
