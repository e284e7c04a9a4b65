"""Start one program in a fresh process, and clean up after it."""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

from prunelab.errors import DiskFull, MissingRequirement
from prunelab.evaluation.sandbox import exchange, inside, sealing, values
from prunelab.evaluation.sandbox.isolation import REMEDY, Isolation
from prunelab.evaluation.sandbox.seccomp import build_filter
from prunelab.evaluation.sandbox.watch import Watch

if TYPE_CHECKING:
    from prunelab.evaluation.sandbox.execution import Execution, Limits

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


def execute(program: str, limits: Limits, isolation: Isolation) -> Execution:
    """Run `program` to its end or its limits, in a fresh process and an empty folder, which is then removed.

    Every outcome of the program is an `Execution`.

    Raises:
        MissingRequirement: the process cannot be started and sealed as `isolation` requires.
        DiskFull: there is no room for its folder.
    """
    with system_errors(), started(Role(inside.RUN, program), limits, isolation) as watch:
        watch.follow()
        return watch.judge()


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """Convert system errors into errors with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no space for a temporary folder ({error}): free some or set TMPDIR") from error
        raise MissingRequirement(f"generated code cannot be isolated on this machine ({error}): {REMEDY}") from error


def _give(folder: str, user: int) -> None:
    try:
        os.chown(folder, user, user)
    except OSError as error:
        raise OSError(f"root cannot give a folder to the unprivileged user {user}: {error.strerror}") from None


@dataclass(frozen=True)
class Role:
    """The role of a process: the `inside.Job` fields of the same names."""

    role: str
    program: str
    test: str = ""
    entry_point: str = ""
    requests: int = -1
    replies: int = -1


@contextlib.contextmanager
def started(role: Role, limits: Limits, isolation: Isolation) -> Iterator[Watch]:
    """Start the process with its two pipes; on exit it is dead and reaped in all cases."""
    token = secrets.token_hex(16)
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as handed_over:
        folder = ours.enter_context(tempfile.TemporaryDirectory(prefix="prunelab-sandbox-"))
        if isolation.unprivileged_user is not None:
            _give(folder, isolation.unprivileged_user)
        channel, its_channel = os.pipe()
        ours.callback(os.close, channel)
        handed_over.callback(os.close, its_channel)
        home = os.open(sys.base_prefix, os.O_PATH | os.O_DIRECTORY)
        handed_over.callback(os.close, home)
        job_file = handed_over.enter_context(tempfile.TemporaryFile())
        marshal.dump(vars(_job(role, limits, isolation, token, its_channel)), job_file)
        job_file.seek(0)
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), *inside.FLAGS, inside.__file__],
            stdin=job_file,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=folder,
            env=_environment(home),
            pass_fds=[its_channel, home, *(each for each in (role.requests, role.replies) if each >= 0)],
            start_new_session=True,  # Ctrl-C reaches only the parent, which then kills
        )
        ours.enter_context(process)
        ours.callback(process.kill)  # runs before the wait of the line above
        handed_over.close()
        yield Watch(process, channel, limits, token)


def _job(role: Role, limits: Limits, isolation: Isolation, token: str, channel: int) -> inside.Job:
    return inside.Job(
        **vars(role),
        modules=_modules(role.role),
        token=token,
        channel=channel,
        parent=os.getpid(),
        system_call_filter=build_filter(isolation.machine, writing=isolation.own_files),
        landlock_version=isolation.landlock_version,
        own_files=isolation.own_files,
        unprivileged_user=isolation.unprivileged_user,
        readable=[
            *_SYSTEM_LIBRARIES,
            str(Path(sys.base_prefix, "lib")),
            str(Path(sys.base_prefix, sys.platlibdir)),
        ],
        cpu_seconds=limits.cpu_seconds,
        memory_bytes=limits.memory_bytes,
        file_bytes=limits.file_bytes,
    )


def _modules(role: str) -> list[tuple[str, CodeType]]:
    """Compiled modules for the process besides `inside`: after sealing it cannot read prunelab's files."""
    modules = (sealing,) if role == inside.RUN else (sealing, values, exchange)
    return [(each.__name__, _compiled(each.__file__)) for each in modules]


@cache
def _compiled(file: str) -> CodeType:
    return compile(Path(file).read_bytes(), file, "exec")


def _environment(home: int) -> dict[str, str]:
    """The complete environment: nothing of the user's except the loader's path to Python's library.

    The standard library is reached through a descriptor opened before the change of user, because root's Python is
    often installed in a folder that other users cannot enter.
    """
    environment = {
        "PYTHONHOME": f"/proc/self/fd/{home}",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONCOERCECLOCALE": "0",  # a locale archive can map 200 MiB of the address space
        "TZ": "UTC0",
    }
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment
