"""The isolation mechanisms of this machine, detected once and used by every run."""

from __future__ import annotations

import os
import platform
import pwd
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from prunelab.errors import MissingRequirement
from prunelab.evaluation.sandbox import inside, sealing
from prunelab.evaluation.sandbox.syscalls import MACHINES

REMEDY = (
    "run prunelab on Linux 5.13 or later (x86_64 or aarch64) with Landlock, as an ordinary user or as root in a "
    "container with the default capabilities and seccomp profile; other benchmarks do not need this"
)
# Below the id of nobody, which owns files on network drives, and below 65536, the limit in many containers.
_CANDIDATE_USERS = range(65533, 60000, -1)


@dataclass(frozen=True)
class Isolation:
    """The mechanisms of a sandbox on this machine. Every run sets up exactly these or fails."""

    machine: str
    """"x86_64" or "aarch64": determines the system call numbers."""
    landlock_version: int
    """0 without Landlock: nothing runs, because a program could read every file that the user can read."""
    unprivileged_user: int | None
    """User and group to switch to if prunelab runs as root; None for an ordinary user."""
    own_files: bool
    """Whether each process can mount a private file system of limited size; otherwise programs cannot write."""

    @classmethod
    def of_this_machine(cls) -> Isolation:
        """Detect the mechanisms; raises `MissingRequirement` if isolation is impossible."""
        if sys.platform != "linux":
            raise MissingRequirement(
                f"running generated code requires Linux, but this is {sys.platform}: run prunelab in a Linux "
                "container (docker run); other benchmarks do not need this"
            )
        machine = platform.machine()
        if machine not in MACHINES or sys.maxsize < 2**32:
            raise MissingRequirement(
                f"running generated code requires a 64-bit Python on {' or '.join(MACHINES)}, but this is {machine}: "
                f"{REMEDY}"
            )
        user = _unused_user() if os.geteuid() == 0 else None
        return cls(machine, sealing.landlock_version(), user, _can_mount())

    def describe(self) -> str:
        """One line per guarantee with the mechanism that enforces it."""
        if not self.landlock_version:
            raise MissingRequirement(f"generated code cannot be isolated on this machine (no Landlock): {REMEDY}")
        landlock = f"Landlock {self.landlock_version}"
        if self.own_files:
            writing, size = f"{landlock}: only in its own folder", "a private in-memory file system of limited size"
        else:
            writing, size = "seccomp: nowhere (no mount namespace here)", "nothing can be written"
        if self.unprivileged_user is None:
            user = "the one that runs prunelab, without capabilities"
        else:
            user = f"{self.unprivileged_user}, unprivileged, instead of root"
        return "\n".join(
            (
                "network: seccomp kills at socket()",
                "processes: seccomp kills at fork, clone and exec; RLIMIT_NPROC 0",
                "signals: seccomp kills at kill and ptrace",
                f"writing: {writing}",
                f"reading: {landlock}: only libraries; the environment is empty",
                f"user: {user}",
                "memory: RLIMIT_AS",
                "time: RLIMIT_CPU; the parent kills at the wall time limit",
                f"file size: {size}",
                "output: bounded pipe, the parent kills",
                "verdict: the test runs in a process separate from the program",
            )
        )


def _can_mount() -> bool:
    """Whether a child process can mount a private file system; tested in one."""
    command = [os.path.realpath(sys.executable), "-I", *inside.FLAGS, sealing.__file__]
    try:
        with tempfile.TemporaryDirectory(prefix="prunelab-sandbox-") as folder:
            tried = subprocess.run(command, cwd=folder, env={}, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _unused_user() -> int:
    for user in _CANDIDATE_USERS:
        try:
            pwd.getpwuid(user)
        except KeyError:
            return user
    raise MissingRequirement(f"no user id from 60001 to 65533 is free: {REMEDY}")
