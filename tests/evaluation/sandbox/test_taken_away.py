"""Every mechanism taken away in turn, by the kernel's own refusal: nothing runs, and one line names what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prunelab.evaluation.sandbox import Limits, Sandbox
from prunelab.evaluation.sandbox.probes import probe
from prunelab.evaluation.sandbox.seccomp import ARCHITECTURES, REFUSE, build_filter

from .conftest import AsOrdinaryUser
from .test_filter import answer

# Refuses some system calls to the process and to all that it starts, then tries the sandbox, case by case in a fork.
REFUSES = """
import ctypes, errno, json, os, struct, sys
from prunelab.evaluation.sandbox import Sandbox, Limits
machine = os.uname().machine
numbers = {
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    "prctl": (157, 167), "capset": (126, 91), "prlimit64": (302, 261), "unshare": (272, 97), "mount": (165, 40),
    "setresuid": (117, 147), "memfd_create": (319, 279), "seccomp": (317, 277),
}
def step(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)
def refuse(call, error, argument=None, value=0):
    number = numbers[call][machine == "aarch64"]
    test = [] if argument is None else [step(0x20, 16 + 8 * argument), step(0x15, value, 0, 1)]
    body = [*test, step(0x06, 0x00050000 | error), step(0x06, 0x7FFF0000)]
    program = b"".join([step(0x20, 0), step(0x15, number, 0, len(body) - 1), *body])
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))
    libc = ctypes.CDLL(None)
    zeros = [ctypes.c_ulong(0)] * 3
    assert libc.prctl(38, ctypes.c_ulong(1), *zeros) == 0
    assert libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(Program(len(program) // 8, program)), *zeros[1:]) == 0
for name, arguments in CASES.items():
    if os.fork() == 0:
        refuse(*arguments)
        sandbox = Sandbox(Limits(file_bytes=2**20))
        try:
            sandbox.check()
            wrote = sandbox.run("open('x', 'w').write('x')").verdict.value
            answer = ["holds", f"{sandbox.describe()}\\n{wrote}"]
        except Exception as error:
            answer = [type(error).__name__, str(error)]
        print(json.dumps([name, *answer]), flush=True)
        os._exit(0)
    os.wait()
"""
EPERM, ENOSYS, EINVAL = 1, 38, 22
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE, RLIMIT_NPROC, RLIMIT_AS = 22, 38, 4, 6, 9
MISSING = {
    "a kernel without Landlock": (("landlock_create_ruleset", ENOSYS), "Landlock is missing"),
    "Landlock without rules": (("landlock_add_rule", EPERM), "landlock: "),
    "Landlock that does not restrict": (("landlock_restrict_self", EPERM), "landlock: "),
    "a kernel without seccomp": (("prctl", EINVAL, 0, PR_SET_SECCOMP), "seccomp: "),
    "privileges that could come back": (("prctl", EPERM, 0, PR_SET_NO_NEW_PRIVS), "no_new_privs: "),
    "processes that others look into": (("prctl", EPERM, 0, PR_SET_DUMPABLE), "dumpable: "),
    "capabilities that stay": (("capset", EPERM), "capset: "),
    "no limit on processes": (("prlimit64", EPERM, 1, RLIMIT_NPROC), "RLIMIT_NPROC: "),
    "no limit on memory": (("prlimit64", EPERM, 1, RLIMIT_AS), "RLIMIT_AS: "),
}
HOLDS = {"no namespaces": ("unshare", EPERM), "no mounts": ("mount", EPERM)}


def _script(cases: dict[str, object]) -> str:
    return REFUSES.replace("CASES", repr(cases))


@pytest.fixture(params=["as we are", "as an ordinary user"])
def run(
    request: pytest.FixtureRequest, sandbox: Sandbox, package_for_all: Path
) -> Callable[[str], dict[str, list[str]]]:
    def answers(script: str) -> dict[str, list[str]]:
        if request.param == "as an ordinary user":
            as_ordinary_user: AsOrdinaryUser = request.getfixturevalue("as_ordinary_user")
            printed = as_ordinary_user(script)
        else:
            environment = {**os.environ, "PYTHONPATH": str(package_for_all)}
            ran = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
            )
            assert ran.returncode == 0, ran.stderr
            printed = ran.stdout
        return {name: answer for name, *answer in map(json.loads, printed.splitlines())}

    sandbox.check()
    return answers


def test_without_any_of_these_nothing_runs(run: Callable[[str], dict[str, list[str]]]) -> None:
    answers = run(_script({name: call for name, (call, _) in MISSING.items()}))
    for name, (_, missing) in MISSING.items():
        error, message = answers[name]
        assert error == "MissingRequirement", name
        assert message.startswith(f"generated code cannot be isolated on this machine ({missing}"), (name, message)
        assert "\n" not in message
        assert "with Landlock, as an ordinary user or as root" in message, "the remedy"


def test_without_a_mount_namespace_programs_write_nowhere(run: Callable[[str], dict[str, list[str]]]) -> None:
    for name, (ending, described) in run(_script(dict(HOLDS))).items():
        assert ending == "holds", (name, described)
        assert "writing: seccomp: nowhere (no mount namespace here)" in described
        assert described.endswith("failed")


def test_root_that_may_not_change_its_user_is_refused(sandbox: Sandbox, package_for_all: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    script = _script({"user": ("setresuid", EPERM)})
    environment = {**os.environ, "PYTHONPATH": str(package_for_all)}
    printed = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
    _, error, message = json.loads(printed)
    assert error == "MissingRequirement"
    assert "root cannot become the unprivileged user" in message


def test_a_busy_machine_is_not_refused(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a load of 25: a second of processor time takes 25 seconds, as the parent's clock sees it."""
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: 25 * clock())
    probe(sandbox.limits, sandbox.isolation)


def test_the_processors_time_decides_and_the_wall_clock_only_far_behind(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.check()
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: 13 * clock())
    busy = Sandbox(Limits(cpu_seconds=1), sandbox.isolation)
    monkeypatch.setattr(busy, "_probed", True)
    assert busy.run("import time\nwhile time.process_time() < 0.8:\n    pass").passed
    assert Limits().wall_seconds >= 20 * Limits().cpu_seconds


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_files_in_memory_are_refused_by_the_filter(machine: str) -> None:
    memfd_create = {"x86_64": 319, "aarch64": 279}[machine]
    for writing in (True, False):
        assert answer(build_filter(machine, writing), ARCHITECTURES[machine], memfd_create) == REFUSE
