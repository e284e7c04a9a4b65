"""A cage with tight limits, and why a machine can have none, found without the cage's own help."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from pathlib import Path

import pytest

from prunelab.evaluation.sandbox import Cage, Limits

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
def cage() -> Cage:
    """Skips where there cannot be a cage; where there can, a cage that does not hold fails the tests."""
    reason = _why_not_here()
    if reason is not None:
        pytest.skip(reason)
    return Cage(Limits(cpu_seconds=1, wall_seconds=20, memory_bytes=256 * 2**20, file_bytes=2**20))


def caged_children() -> list[int]:
    """The process ids of this process's children that are cages."""
    lists = Path("/proc/self/task").glob("*/children")
    children = [int(child) for each in lists for child in each.read_text().split()]
    return [child for child in children if "inside.py" in Path(f"/proc/{child}/cmdline").read_text()]
