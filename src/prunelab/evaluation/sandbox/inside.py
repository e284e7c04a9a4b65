"""The first thing that runs in the fresh process: it seals the process, then runs the program.

This file runs as a script under a bare interpreter, so it imports nothing of prunelab, and for every program
anew, so it imports nothing that takes long (`typing` and `json` would double the start). Sealing cannot be
undone, and the program is not even compiled before it is complete. Order matters: what needs privilege or
opens files comes first, the filter on system calls last.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import struct
import sys
import types

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9
_CAPABILITY_VERSION_3 = 0x20080522
# The same on every architecture; include/uapi/linux/landlock.h has the rest.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
# How many of the rights on files each version knows; a right that is handled and not granted is refused.
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_RIGHTS_OF_LATER_VERSIONS = 16
_OPEN_FILES = 64
_DETAIL_CHARACTERS = 200


class Job:
    """What the parent hands to the fresh process, marshalled on its standard input.

    token               random; begins every message, so that the program's own writing is never taken for one
    channel             the descriptor on which messages go to the parent
    parent              the parent's process id
    system_call_filter  `seccomp.build_filter`
    landlock_version    0 where the kernel has none; the filter then forbids all writing
    unprivileged_user   the user and group to become, when the parent is root
    readable            folders with libraries, which may be read where there is Landlock
    """

    def __init__(
        self,
        program: str,
        token: str,
        channel: int,
        parent: int,
        system_call_filter: bytes,
        landlock_version: int,
        unprivileged_user: int | None,
        readable: list[str],
        cpu_seconds: int,
        memory_bytes: int,
        file_bytes: int,
    ) -> None:
        self.program = program
        self.token = token
        self.channel = channel
        self.parent = parent
        self.system_call_filter = system_call_filter
        self.landlock_version = landlock_version
        self.unprivileged_user = unprivileged_user
        self.readable = readable
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self.file_bytes = file_bytes


class _FilterProgram(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main() -> None:
    """Seal the process, run the program, tell the parent how it ended."""
    job = Job(**marshal.load(sys.stdin.buffer))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the job, token and all, must not be there to read again
    write, leave = os.write, os._exit  # the program may put others in their place

    def tell(kind: str, detail: str) -> None:
        write(job.channel, f"\n{job.token} {kind} {detail}\n".encode(errors="backslashreplace"))

    try:
        seal(job)
    except OSError as error:
        tell("unsealed", str(error))
        leave(1)
    tell("sealed", "")
    tell(*outcome(job.program))
    leave(0)


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


def _line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = " ".join(str(error)[:_DETAIL_CHARACTERS].split())
    except BaseException:  # noqa: BLE001 - the program's own __str__
        return name
    return f"{name}: {text}" if text else name


def seal(job: Job) -> None:
    """Take from this process, for good, what the program does not need; OSError where that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    _limit(job)
    _prctl(libc, "no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
    if job.landlock_version:
        _restrict_files(libc, job)
    if job.unprivileged_user is not None:
        _become(job.unprivileged_user)
    _drop_capabilities(libc)
    _prctl(libc, "dumpable", _PR_SET_DUMPABLE, 0)  # no core dump; no look inside for others of this user
    _prctl(libc, "parent death signal", _PR_SET_PDEATHSIG, _SIGKILL)  # a change of user clears it
    if os.getppid() != job.parent:
        raise OSError("the process that started it is gone")
    program = _FilterProgram(len(job.system_call_filter) // 8, job.system_call_filter)
    _prctl(libc, "seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


def _limit(job: Job) -> None:
    import resource  # not on every system on which this file may be imported

    wanted = {
        resource.RLIMIT_AS: (job.memory_bytes, job.memory_bytes),
        # SIGXCPU tells a time-out from other ends; a program that ignores it has one second more.
        resource.RLIMIT_CPU: (job.cpu_seconds, job.cpu_seconds + 1),
        resource.RLIMIT_FSIZE: (job.file_bytes, job.file_bytes),
        resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES),
        resource.RLIMIT_CORE: (0, 0),
        # It counts what the user runs already, but forbids only this process a further one.
        resource.RLIMIT_NPROC: (0, 0),
    }
    for which, (soft, hard) in wanted.items():
        ceiling = resource.getrlimit(which)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)  # noqa: PLW2901 - a lower limit stays
        resource.setrlimit(which, (soft, hard))


def _restrict_files(libc: ctypes.CDLL, job: Job) -> None:
    version = job.landlock_version
    rights = (1 << _RIGHTS_BY_VERSION.get(version, _RIGHTS_OF_LATER_VERSIONS)) - 1
    network = 0b11 if version >= 4 else 0  # binding and connecting TCP
    scopes = 0b11 if version >= 6 else 0  # abstract sockets and signals
    attributes = struct.pack("=QQQ", rights, network, scopes)
    ruleset = _call(libc, "landlock", _LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    own = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
    grants = [(folder, _READ_FILE | _READ_DIR) for folder in job.readable]
    for folder, granted in [*grants, (".", own & rights)]:
        if not os.path.isdir(folder):
            continue
        descriptor = os.open(folder, os.O_PATH)
        rule = struct.pack("=Qi", granted, descriptor)
        _call(libc, "landlock", _LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)
    _call(libc, "landlock", _LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def landlock_version() -> int:
    """The version of Landlock that this kernel offers to this process, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        return _call(libc, "landlock", _LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def _become(user: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        raise OSError(f"root cannot become the unprivileged user {user} ({error.strerror})") from None


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise _failure("capset")


def _prctl(libc: ctypes.CDLL, what: str, option: int, *arguments: object) -> None:
    numbers = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    padding = [ctypes.c_ulong(0)] * (4 - len(numbers))
    if libc.prctl(option, *numbers, *padding) != 0:
        raise _failure(what)


def _call(libc: ctypes.CDLL, what: str, call: int, *arguments: object) -> int:
    longs = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(libc.syscall(ctypes.c_long(call), *longs))
    if result < 0:
        raise _failure(what)
    return result


def _failure(what: str) -> OSError:
    return OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
