"""Probes: attempts to break every guarantee, made inside a sandbox, so that each guarantee is verified.

Each attempt is harmless if it succeeds; code execution is then refused.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prunelab.errors import MissingRequirement
from prunelab.evaluation.sandbox.examining import examine
from prunelab.evaluation.sandbox.execution import LEAST_MEMORY_BYTES, MIB, Execution, Exercise, Limits, ProgramVerdict
from prunelab.evaluation.sandbox.isolation import REMEDY, Isolation
from prunelab.evaluation.sandbox.process import execute

# A busy machine delays CPU time, so the wall time limit must not end these probes.
_PATIENCE_SECONDS: Final = 600.0
_LIMITS: Final = Limits(
    cpu_seconds=3, wall_seconds=_PATIENCE_SECONDS, memory_bytes=4 * LEAST_MEMORY_BYTES, file_bytes=MIB
)
_AT_ONCE: Final = 2


@dataclass(frozen=True)
class _Probe:
    guarantee: str
    attempt: str
    """A program."""
    verdict: ProgramVerdict
    detail: str = ""
    """Required beginning of the detail."""
    limits: Limits = _LIMITS


_ORDINARY = """
import bisect, collections, copy, datetime, functools, hashlib, heapq, itertools, json, math
import operator, random, re, string, sys, typing
assert hashlib.md5(b"").hexdigest() == "d41d8cd98f00b204e9800998ecf8427e"
assert math.isqrt(17) == 4 and re.sub("a", "b", "banana") == "bbnbnb"
"""

_PROBES: Final = (
    _Probe("a program that leaves early has not passed", "import os; os._exit(0)", ProgramVerdict.FAILED),
    _Probe("no network", "import socket; socket.socket()", ProgramVerdict.KILLED, "SIGSYS"),
    _Probe("no network", "import socket; socket.socket(socket.AF_UNIX)", ProgramVerdict.KILLED, "SIGSYS"),
    _Probe("no processes", "import os; os.fork() or os._exit(0)", ProgramVerdict.KILLED, "SIGSYS"),
    _Probe("no threads", "import _thread; _thread.start_new_thread(int, ())", ProgramVerdict.KILLED, "SIGSYS"),
    _Probe(
        "no other program",
        "import os; os.execv('/proc/self/exe', ['python', '-V'])",
        ProgramVerdict.KILLED,
        "SIGSYS",
    ),
    _Probe("no signals to others", "import os; os.kill(os.getppid(), 0)", ProgramVerdict.KILLED, "SIGSYS"),
    _Probe("a memory limit", f"bytearray({_LIMITS.memory_bytes})", ProgramVerdict.FAILED, "MemoryError"),
    _Probe("an output limit", f"print('x' * {_LIMITS.output_bytes + 1})", ProgramVerdict.KILLED, "output limit"),
    _Probe(
        "an empty environment",
        "import os; assert not set(os.environ) - {'PYTHONHOME', 'PYTHONHASHSEED', 'PYTHONUTF8', 'PYTHONCOERCECLOCALE', "
        "'TZ', 'LD_LIBRARY_PATH', 'LC_CTYPE'}",
        ProgramVerdict.PASSED,
    ),
    _Probe(
        "no reading of the parent's environment",
        "import os; open(f'/proc/{os.getppid()}/environ')",
        ProgramVerdict.FAILED,
        "PermissionError",
    ),
    _Probe("no files in memory", "import os; os.memfd_create('x')", ProgramVerdict.FAILED, "PermissionError"),
    _Probe(
        "no privilege",
        "import os; assert os.getuid() and os.geteuid() and os.getgid() and os.getegid()",
        ProgramVerdict.PASSED,
    ),
)

# Last, because they take longest.
_TIME_PROBES: Final = (
    _Probe(
        "a CPU time limit",
        "while True: pass",
        ProgramVerdict.TIMED_OUT,
        "CPU time",
        Limits(cpu_seconds=1, wall_seconds=_PATIENCE_SECONDS),
    ),
    _Probe(
        "a wall time limit",
        "import time; time.sleep(20)",
        ProgramVerdict.TIMED_OUT,
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

# Each function creates files without a directory entry and keeps them open.
_WRITE_UNSEEN = f"""
import os
def removed(number):
    descriptor = os.open(str(number), os.O_CREAT | os.O_RDWR)
    os.remove(str(number))
    return descriptor
def replaced(number):
    descriptor = os.open("new", os.O_CREAT | os.O_RDWR)
    os.rename("new", "old")
    return descriptor
def nameless(number):
    return os.open(".", os.O_TMPFILE | os.O_RDWR)
for make in removed, replaced, nameless:
    written, kept = 0, []
    try:
        for number in range(8):
            kept.append(make(number))
            written += os.write(kept[-1], bytes({_LIMITS.file_bytes // 4}))
    except OSError:
        pass
    assert written <= {_LIMITS.file_bytes}, f"{{make.__name__}}: {{written}} bytes"
    for descriptor in kept:
        os.close(descriptor)
"""

# Folder and file are writable for everyone, so that a refusal comes from the sandbox.
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
    refused(os.open, os.path.join(place, "prunelab-sandbox-probe"), os.O_CREAT | os.O_WRONLY)
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


_PROMPT = "import os, sys\ndef f(x):\n"
_TEST = "def check(candidate):\n    assert candidate(2) == 3"
_EXERCISES: Final = (
    ("a test apart from its program", "    return x + 1", ProgramVerdict.PASSED),
    (
        "a verdict that comparisons cannot forge",
        "    return type('', (), {'__eq__': lambda *_: True})()",
        ProgramVerdict.TAMPERED,
    ),
    (
        "a verdict that frames cannot forge",
        "    frame = sys._getframe()\n    while frame:\n        if 'tell' in frame.f_locals:\n"
        "            frame.f_locals['tell']('passed', '')\n        frame = frame.f_back\n    os._exit(0)",
        ProgramVerdict.TAMPERED,
    ),
)


def probe(limits: Limits, isolation: Isolation) -> None:
    """Run all probes; raises `MissingRequirement` with the first guarantee that fails."""
    with (
        tempfile.TemporaryDirectory(prefix="prunelab-sandbox-decoy-") as name,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        decoy = Path(name, "decoy.txt")
        decoy.write_text("untouched")
        decoy.chmod(0o666)
        Path(name).chmod(0o777)
        probes = (
            _Probe("ordinary programs run within the limits given", _ORDINARY, ProgramVerdict.PASSED, limits=limits),
            *_PROBES,
            *_file_probes(decoy, isolation),
            *_TIME_PROBES,
        )
        verdicts = [
            pool.submit(examine, Exercise(_PROMPT, completion, _TEST, "f"), _LIMITS, isolation)
            for _, completion, _ in _EXERCISES
        ]
        endings = [pool.submit(execute, attempt.attempt, attempt.limits, isolation) for attempt in probes]
        try:
            for attempt, ending in zip(probes, endings, strict=True):
                _demand(attempt, ending.result())
            for (guarantee, completion, verdict), ending in zip(_EXERCISES, verdicts, strict=True):
                _demand(_Probe(guarantee, completion, verdict), ending.result())
        finally:
            pool.shutdown(cancel_futures=True)
        if decoy.read_text() != "untouched" or [path.name for path in Path(name).iterdir()] != [decoy.name]:
            raise MissingRequirement(f"generated code could write outside its own folder: {REMEDY}")


def _file_probes(decoy: Path, isolation: Isolation) -> tuple[_Probe, ...]:
    outside = _Probe(
        "no writing outside its own folder",
        _WRITE_OUTSIDE.format(folder=str(decoy.parent), file=str(decoy), home=os.path.expanduser("~")),
        ProgramVerdict.PASSED,
    )
    unreadable = _Probe("no reading outside", f"open({str(decoy)!r})", ProgramVerdict.FAILED, "PermissionError")
    if not isolation.own_files:
        nowhere = _Probe("no writing at all", _WRITE_IN_OWN_FOLDER, ProgramVerdict.FAILED, "PermissionError")
        return outside, unreadable, nowhere
    return (
        outside,
        unreadable,
        _Probe("writing in its own folder", _WRITE_IN_OWN_FOLDER, ProgramVerdict.PASSED),
        _Probe("a file size limit", _WRITE_TOO_MUCH, ProgramVerdict.FAILED, "OSError: [Errno 27]"),
        _Probe("a limit on files without a name", _WRITE_UNSEEN, ProgramVerdict.PASSED),
    )


def _demand(attempt: _Probe, ending: Execution) -> None:
    if ending.verdict is not attempt.verdict or not ending.detail.startswith(attempt.detail):
        raise MissingRequirement(
            f"generated code cannot be isolated on this machine: guarantee {attempt.guarantee!r} failed "
            f"(the attempt ended with {ending.verdict}: {ending.detail or 'no detail'}): {REMEDY}"
        )
