"""Other users, other kernels, other systems: the sandbox holds in full, or refuses up front."""

from __future__ import annotations

import dataclasses
import errno
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import prunelab.evaluation.sandbox
from prunelab.errors import DiskFull, MissingRequirement
from prunelab.evaluation.sandbox import Isolation, ProgramVerdict, Sandbox, sealing, seccomp
from prunelab.evaluation.sandbox.process import execute
from prunelab.evaluation.sandbox.syscalls import DEADLY, HARMLESS

from .conftest import AsOrdinaryUser

AS_ORDINARY_USER = """
import dataclasses, os
from prunelab.evaluation.sandbox import Sandbox, Isolation, Limits
isolation = Isolation.of_this_machine()
assert os.getuid() != 0 and isolation.unprivileged_user is None
sandbox = Sandbox(Limits(), isolation)
sandbox.check()
for program in ("import os; os.fork()", "import os; os.kill(os.getppid(), 9)", "import socket; socket.socket()"):
    assert sandbox.run(program).detail.startswith("SIGSYS"), program
assert sandbox.run("assert sorted([2, 1]) == [1, 2]").passed
Sandbox(isolation=dataclasses.replace(isolation, own_files=False)).check()
print("held")
"""


@pytest.mark.usefixtures("sandbox")
def test_it_holds_for_an_ordinary_user(as_ordinary_user: AsOrdinaryUser) -> None:
    assert as_ordinary_user(AS_ORDINARY_USER) == "held\n"


def test_it_holds_on_older_kernels(sandbox: Sandbox) -> None:
    """The first Landlock lacks the later versions' rights, truncation among them."""
    old = Sandbox(sandbox.limits, dataclasses.replace(sandbox.isolation, landlock_version=1))
    old.check()
    assert old.run("open('x', 'w').write('x')").passed == sandbox.isolation.own_files


def test_without_a_file_system_of_its_own_a_program_writes_nowhere(sandbox: Sandbox) -> None:
    bare = Sandbox(sandbox.limits, dataclasses.replace(sandbox.isolation, own_files=False))
    bare.check()
    execution = bare.run("open('x', 'w').write('x')")
    assert execution.verdict is ProgramVerdict.FAILED
    assert execution.detail.startswith("PermissionError")
    assert "seccomp: nowhere" in bare.describe()


def test_without_landlock_nothing_runs(sandbox: Sandbox) -> None:
    bare = Sandbox(sandbox.limits, dataclasses.replace(sandbox.isolation, landlock_version=0))
    for attempt in (bare.check, bare.describe, lambda: bare.run("x = 1")):
        with pytest.raises(MissingRequirement, match="Landlock"):
            attempt()
    with pytest.raises(MissingRequirement, match="Landlock is missing and a program could read files"):
        execute("x = 1", sandbox.limits, bare.isolation)


@pytest.mark.parametrize(
    ("call", "guarantee"),
    [
        ("socket", "no network"),
        ("clone", "no processes"),
        ("execve", "no other program"),
        ("kill", "no signals"),
    ],
)
def test_a_filter_with_a_hole_is_noticed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, call: str, guarantee: str
) -> None:
    monkeypatch.setattr(seccomp, "DEADLY", {name: each for name, each in DEADLY.items() if name != call})
    monkeypatch.setattr(seccomp, "HARMLESS", {**HARMLESS, call: DEADLY[call]})
    with pytest.raises(MissingRequirement, match=f"guarantee '{guarantee}"):
        Sandbox(sandbox.limits, sandbox.isolation).check()


@pytest.mark.parametrize(
    ("line", "guarantee"),
    [
        ('"RLIMIT_AS":', "a memory limit"),
        ('"RLIMIT_FSIZE":', "a file size limit"),
        ("_restrict_files(libc, job)", "no (writing outside|reading of)"),
        ("mount_own_files(libc, job.", "a limit on files without a name"),
        ("_become(job.unprivileged_user)", "no privilege"),
    ],
)
def test_a_step_left_out_is_noticed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, guarantee: str
) -> None:
    if "FSIZE" in line and not sandbox.isolation.own_files:
        pytest.skip("a program writes nowhere here")
    if "_become" in line and sandbox.isolation.unprivileged_user is None:
        pytest.skip("not root")
    script = Path(sealing.__file__).read_text().splitlines()
    (left_out,) = [each for each in script if each.strip().startswith(line)]
    indent = left_out[: -len(left_out.lstrip())]
    script[script.index(left_out)] = f"{indent}pass" if left_out.endswith(")") else ""
    weakened = tmp_path / "sealing.py"
    weakened.write_text("\n".join(script))
    monkeypatch.setattr(sealing, "__file__", str(weakened))
    with pytest.raises(MissingRequirement, match=f"guarantee '{guarantee}"):
        Sandbox(sandbox.limits, sandbox.isolation).check()


def test_no_program_runs_where_the_cage_does_not_hold(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(prunelab.evaluation.sandbox.sandbox, "execute", lambda *arguments: ran.append("ran"))
    monkeypatch.setattr(seccomp, "DEADLY", {})
    broken = Sandbox(sandbox.limits, sandbox.isolation)
    for attempt in (lambda: broken.run("x = 1"), lambda: broken.run_all(["x = 1"])):
        with pytest.raises(MissingRequirement):
            attempt()
    assert ran == []


def test_root_that_cannot_become_another_user_is_refused(sandbox: Sandbox) -> None:
    """As in a container that maps a single user."""
    source = "from prunelab.evaluation.sandbox import Sandbox; Sandbox().check()"
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", source], capture_output=True, text=True
    )
    if "unshare:" in result.stderr:
        pytest.skip("no user namespaces here")
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("prunelab.errors.MissingRequirement")
    assert "unprivileged user" in last
    assert "ordinary user" in last


def test_macos_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for attempt in (Sandbox().check, Sandbox().describe, lambda: Sandbox().run("x = 1")):
        with pytest.raises(MissingRequirement, match=r"requires Linux, but this is darwin: .* container"):
            attempt()


def test_an_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(MissingRequirement, match="x86_64 or aarch64, but this is riscv64"):
        Isolation.of_this_machine()


def test_a_full_disk_is_no_verdict(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sandbox.check()
    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(DiskFull, match="TMPDIR"):
        sandbox.run("x = 1")


def test_an_interpreter_that_does_not_start_is_refused(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for python in ("/nonexistent/python", shutil.which("false") or "/bin/false"):
        monkeypatch.setattr(sys, "executable", python)
        with pytest.raises(MissingRequirement, match="cannot be isolated on this machine"):
            Sandbox(sandbox.limits, sandbox.isolation).check()
