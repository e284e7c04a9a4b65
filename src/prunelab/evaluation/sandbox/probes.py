"""Attempts on every guarantee, each made from inside a cage, so that it is seen to hold, not assumed.

Each attempt is harmless where it succeeds: then code execution is refused, and nothing was lost.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prunelab.errors import MissingRequirement
from prunelab.evaluation.sandbox.execution import LEAST_MEMORY_BYTES, MIB, Execution, Limits, Verdict
from prunelab.evaluation.sandbox.isolation import REMEDY, Isolation
from prunelab.evaluation.sandbox.process import execute

_LIMITS: Final = Limits(cpu_seconds=3, wall_seconds=20, memory_bytes=4 * LEAST_MEMORY_BYTES, file_bytes=MIB)
_AT_ONCE: Final = 2


@dataclass(frozen=True)
class _Probe:
    guarantee: str
    attempt: str
    """A program."""
    verdict: Verdict
    detail: str = ""
    """How the detail must begin."""
    limits: Limits = _LIMITS


_ORDINARY = """
import bisect, collections, copy, datetime, functools, hashlib, heapq, itertools, json, math
import operator, random, re, string, sys, typing
assert hashlib.md5(b"").hexdigest() == "d41d8cd98f00b204e9800998ecf8427e"
assert math.isqrt(17) == 4 and re.sub("a", "b", "banana") == "bbnbnb"
"""

_PROBES: Final = (
    _Probe("a program that leaves early has not passed", "import os; os._exit(0)", Verdict.FAILED),
    _Probe("no network", "import socket; socket.socket()", Verdict.KILLED, "SIGSYS"),
    _Probe("no network", "import socket; socket.socket(socket.AF_UNIX)", Verdict.KILLED, "SIGSYS"),
    _Probe("no processes", "import os; os.fork() or os._exit(0)", Verdict.KILLED, "SIGSYS"),
    _Probe("no threads", "import _thread; _thread.start_new_thread(int, ())", Verdict.KILLED, "SIGSYS"),
    _Probe(
        "no other program",
        "import os; os.execv('/proc/self/exe', ['python', '-V'])",
        Verdict.KILLED,
        "SIGSYS",
    ),
    _Probe("no signals to others", "import os; os.kill(os.getppid(), 0)", Verdict.KILLED, "SIGSYS"),
    _Probe("a memory limit", f"bytearray({_LIMITS.memory_bytes})", Verdict.FAILED, "MemoryError"),
    _Probe("an output limit", f"print('x' * {_LIMITS.output_bytes + 1})", Verdict.KILLED, "output limit"),
    _Probe(
        "an empty environment",
        "import os; assert not {'HOME', 'USER', 'PATH'} & set(os.environ)",
        Verdict.PASSED,
    ),
    _Probe(
        "no privilege",
        "import os; assert os.getuid() and os.geteuid() and os.getgid() and os.getegid()",
        Verdict.PASSED,
    ),
)

# Last, for they take the longest.
_TIME_PROBES: Final = (
    _Probe(
        "a CPU time limit",
        "while True: pass",
        Verdict.TIMED_OUT,
        "CPU time",
        Limits(cpu_seconds=1, wall_seconds=20),
    ),
    _Probe(
        "a wall time limit",
        "import time; time.sleep(20)",
        Verdict.TIMED_OUT,
        "wall time",
        Limits(wall_seconds=0.2),
    ),
)

_WRITE_IN_OWN_FOLDER = """
with open("own.txt", "w") as file:
    file.write("own")
with open("own.txt") as file:
    assert file.read() == "own"
import os
os.remove("own.txt")
"""

_WRITE_TOO_MUCH = f"""
with open("large", "wb", buffering=0) as file:
    file.write(bytes({_LIMITS.file_bytes}))
    file.write(b"x")
"""

# Anyone may write to the folder and the file, so that a refusal is the cage's, not the permissions'.
_WRITE_OUTSIDE = """
import os
folder, file = {folder!r}, {file!r}
def refused(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return
    raise AssertionError(f"{{attempt.__name__}} succeeded")
for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_TRUNC | os.O_ACCMODE, os.O_WRONLY | os.O_APPEND):
    refused(os.open, file, flags)
for place in ("/tmp", "/var/tmp", "/dev/shm", "/dev", {home!r}):
    refused(os.open, os.path.join(place, "prunelab-cage-probe"), os.O_CREAT | os.O_WRONLY)
for name in ("new", "../new"):
    refused(os.open, os.path.join(folder, name), os.O_CREAT | os.O_WRONLY)
    refused(os.open, os.path.join(folder, name), os.O_CREAT)
    refused(os.mkdir, os.path.join(folder, name))
    refused(os.symlink, file, os.path.join(folder, name))
    refused(os.link, file, os.path.join(folder, name))
    refused(os.rename, file, os.path.join(folder, name))
refused(os.truncate, file, 0)
refused(os.remove, file)
refused(os.chmod, file, 0)
refused(os.utime, file)
"""


def probe(limits: Limits, isolation: Isolation) -> None:
    """Make every attempt; raises `MissingRequirement` with the first guarantee that does not hold."""
    with (
        tempfile.TemporaryDirectory(prefix="prunelab-cage-decoy-") as name,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        decoy = Path(name, "decoy.txt")
        decoy.write_text("untouched")
        decoy.chmod(0o666)
        Path(name).chmod(0o777)
        probes = (
            _Probe("ordinary programs run within the limits given", _ORDINARY, Verdict.PASSED, limits=limits),
            *_PROBES,
            *_file_probes(decoy, isolation),
            *_TIME_PROBES,
        )
        endings = [pool.submit(execute, one.attempt, one.limits, isolation) for one in probes]
        try:
            for one, ending in zip(probes, endings, strict=True):
                _demand(one, ending.result())
        finally:
            pool.shutdown(cancel_futures=True)
        if decoy.read_text() != "untouched" or [path.name for path in Path(name).iterdir()] != [decoy.name]:
            raise MissingRequirement(f"generated code could write outside its own folder: {REMEDY}")


def _file_probes(decoy: Path, isolation: Isolation) -> tuple[_Probe, ...]:
    outside = _Probe(
        "no writing outside its own folder",
        _WRITE_OUTSIDE.format(folder=str(decoy.parent), file=str(decoy), home=os.path.expanduser("~")),
        Verdict.PASSED,
    )
    if not isolation.landlock_version:
        nowhere = _Probe("no writing at all", _WRITE_IN_OWN_FOLDER, Verdict.FAILED, "PermissionError")
        return outside, nowhere
    return (
        outside,
        _Probe("writing in its own folder", _WRITE_IN_OWN_FOLDER, Verdict.PASSED),
        _Probe("a file size limit", _WRITE_TOO_MUCH, Verdict.FAILED, "OSError: [Errno 27]"),
        _Probe("no reading outside", f"open({str(decoy)!r})", Verdict.FAILED, "PermissionError"),
    )


def _demand(one: _Probe, ending: Execution) -> None:
    if ending.verdict is not one.verdict or not ending.detail.startswith(one.detail):
        raise MissingRequirement(
            f"generated code cannot be run isolated here: not held is {one.guarantee!r} "
            f"(the attempt ended with {ending.verdict}: {ending.detail or 'no detail'}): {REMEDY}"
        )
