"""What this machine offers for isolating a process, found out once and followed by every run."""

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
    "container with the default capabilities and seccomp profile; the other benchmarks need none of this"
)
# Below the id of nobody, who owns files on network drives, and below 65536, where many containers' users end.
_CANDIDATE_USERS = range(65533, 60000, -1)


@dataclass(frozen=True)
class Isolation:
    """The mechanisms that a cage uses on this machine. Every run sets up exactly these or fails."""

    machine: str
    """"x86_64" or "aarch64": the numbers of the system calls to filter."""
    landlock_version: int
    """0 without Landlock: then nothing runs, for a program could read every file that the user can read."""
    unprivileged_user: int | None
    """The user and group to become when prunelab is run by root; None for an ordinary user, who stays."""
    own_files: bool
    """Whether each process can mount a file system of its own, of limited size; without, a program writes nowhere."""

    @classmethod
    def of_this_machine(cls) -> Isolation:
        """Find out what there is; raises `MissingRequirement` where there can be no isolation at all."""
        if sys.platform != "linux":
            raise MissingRequirement(
                f"running generated code needs Linux, this is {sys.platform}: run prunelab in a Linux "
                "container (docker run); the other benchmarks need none of this"
            )
        machine = platform.machine()
        if machine not in MACHINES or sys.maxsize < 2**32:
            raise MissingRequirement(
                f"running generated code needs a 64-bit Python on {' or '.join(MACHINES)}, this is {machine}: {REMEDY}"
            )
        user = _unused_user() if os.geteuid() == 0 else None
        return cls(machine, sealing.landlock_version(), user, _can_mount())

    def describe(self) -> str:
        """One line for each guarantee: what holds it."""
        if not self.landlock_version:
            raise MissingRequirement(f"generated code cannot be run isolated here (no Landlock): {REMEDY}")
        landlock = f"Landlock {self.landlock_version}"
        if self.own_files:
            writing, size = f"{landlock}: only in its own folder", "a file system of its own in memory, of limited size"
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
                "time: RLIMIT_CPU; far behind, the parent kills at the wall-clock limit",
                f"file size: {size}",
                "output: bounded pipe, the parent kills",
                "verdict: the test runs in a process that the program does not share",
            )
        )


def _can_mount() -> bool:
    """Whether a process that we start may mount a file system that it alone sees; tried in one."""
    command = [os.path.realpath(sys.executable), "-I", *inside.FLAGS, sealing.__file__]
    try:
        with tempfile.TemporaryDirectory(prefix="prunelab-cage-") as folder:
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
