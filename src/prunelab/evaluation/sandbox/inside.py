"""The first code in the fresh process: it seals the process, then runs the job.

This file runs as a script under a bare interpreter, so it imports nothing of prunelab, and it runs for every program,
so it imports nothing slow (`typing` and `json` would double the start-up time). Other modules that it needs come
compiled with the job. Sealing cannot be undone, and it is complete before the program is compiled.
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
    """The parent's instructions to the fresh process, marshalled on its standard input.

    role                RUN: run `program` alone; SERVE: run it and answer calls of its `entry_point`;
                        CHECK: run `test`, with an entry point that calls the serving process
    program             source of the program; for CHECK the definitions that the test may use
    test                source of the test, for CHECK
    entry_point         the function under test, for SERVE and CHECK
    requests, replies   descriptors between the checking and the serving process
    modules             names and code objects: `sealing`, for SERVE and CHECK also `values` and `exchange`
    token               random; begins every message, to distinguish it from the program's output
    channel             descriptor on which messages are sent to the parent
    parent              process id of the parent
    system_call_filter  `seccomp.build_filter`
    landlock_version    version of Landlock in the kernel; with 0 nothing runs
    own_files           whether to mount a private file system of `file_bytes`; otherwise nothing can be written
    unprivileged_user   user and group to switch to if the parent is root
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
    """Seal the process, run the job, report its outcome to the parent."""
    job = Job(**marshal.load(sys.stdin.buffer))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the job, which contains the token, must not be readable again
    write, leave = os.write, os._exit  # saved, because the program may replace them

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
    """Compile and run `program`; returns a verdict's value and a line of detail.

    As in HumanEval's harness the program is not `__main__`, so an `if __name__ == "__main__"` block does not run.
    """
    try:
        code = compile(program, "<completion>", "exec", dont_inherit=True)
    except BaseException as error:  # noqa: BLE001 - the compiler raises more than SyntaxError
        return "syntax_error", _line(error)
    module = types.ModuleType("completion")
    sys.modules["completion"] = module
    try:
        exec(code, module.__dict__)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt count as failures
        return "failed", _line(error)
    return "passed", ""


def _exchange(job: Job, exchange: types.ModuleType) -> tuple[str, str]:
    """Run the serving or the checking role; only a check that completed has passed."""
    act = exchange.serve if job.role == SERVE else exchange.check
    try:
        act(job)
    except BaseException as error:  # noqa: BLE001 - the program may raise any exception, which is raised again here
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
