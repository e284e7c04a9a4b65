"""A sandbox with tight limits, and why a machine can have none, found without the sandbox's own help."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import prunelab.evaluation.sandbox
from prunelab.evaluation.sandbox import Limits, Sandbox

AsOrdinaryUser = Callable[..., str]
NOBODY = 65534

CAP_CHOWN, CAP_SETGID, CAP_SETUID = 0, 6, 7
PR_GET_SECCOMP = 21


def _why_not_here() -> str | None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return "no Linux on x86_64 or aarch64"
    if ctypes.CDLL(None).prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0:
        return "the kernel has no seccomp"
    status = Path("/proc/self/status").read_text()
    capabilities = int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16)
    if os.geteuid() == 0 and not all(capabilities >> bit & 1 for bit in (CAP_CHOWN, CAP_SETGID, CAP_SETUID)):
        return "root that may not become another user"
    return None


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Skips where there cannot be a sandbox; where there can, a sandbox that does not hold fails the tests."""
    reason = _why_not_here()
    if reason is not None:
        pytest.skip(reason)
    return Sandbox(Limits(cpu_seconds=1, wall_seconds=20, memory_bytes=256 * 2**20, file_bytes=2**20))


def caged_children() -> list[int]:
    """The process ids of this process's children that are cages."""
    lists = Path("/proc/self/task").glob("*/children")
    children = [int(child) for each in lists for child in each.read_text().split()]
    return [child for child in children if "inside.py" in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.fixture(scope="session")
def package_for_all() -> Iterator[Path]:
    """A copy of the sandbox that every user can read, without the rest of prunelab."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(prunelab.evaluation.sandbox.__file__).parents[2]
        target = Path(name, "prunelab")
        for part in ("evaluation/sandbox", "errors"):
            shutil.copytree(source / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (target, target / "evaluation"):
            (folder / "__init__.py").touch()
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def as_ordinary_user(package_for_all: Path) -> AsOrdinaryUser:
    """Run a script that uses the sandbox as a user without privileges; returns what it prints.

    Root becomes nobody, with a Python that nobody can run, if there is one; others stay who they are.
    """
    python = os.path.realpath(sys.executable)
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        candidates = (python, shutil.which("python3", path="/usr/local/bin:/usr/bin"))
        able = [each for each in candidates if each and _can_run(each)]
        if not able:
            pytest.skip("no Python 3.11 that an ordinary user could run")
        python = able[0]

    def run(script: str, **environment: str) -> str:
        result = subprocess.run(
            [python, "-c", script],
            cwd="/",
            env={"PYTHONPATH": str(package_for_all), "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
            **user,  # type: ignore[call-overload]
        )
        assert result.returncode == 0, result.stderr
        return str(result.stdout)

    return run


def _can_run(python: str) -> bool:
    source = "import ctypes, sys; sys.exit(sys.version_info < (3, 11))"
    try:
        ran = subprocess.run([python, "-c", source], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    except PermissionError:
        return False
    return ran.returncode == 0
