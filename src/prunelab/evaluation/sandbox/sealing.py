"""Irrevocably remove a process's access to everything that a program does not need.

It runs in the fresh process before the program is compiled. The order matters: steps that need privileges or open files
come first, the system call filter last.

Imports nothing of prunelab and nothing slow. Run as a script, it tests whether `mount_own_files` works on this machine,
and raises if it does not.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False  # as in `typing`, whose import would take longer than everything else
if TYPE_CHECKING:
    from prunelab.evaluation.sandbox.inside import Job

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9
_CAPABILITY_VERSION_3 = 0x20080522
# Equal on all architectures; the other constants are from include/uapi/linux/landlock.h.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
# Number of file rights that each version supports; a handled right that is not granted is refused.
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_RIGHTS_OF_LATER_VERSIONS = 16
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 18
_OPEN_FILES = 64
_FILE_NAMES = 1024


class _FilterProgram(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def seal(job: Job) -> None:
    """Irrevocably restrict this process; raises OSError if a step fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not job.landlock_version:
        raise OSError("Landlock is missing and a program could read files; use Linux 5.13 or later")
    if job.own_files:
        mount_own_files(libc, job.unprivileged_user or os.getuid(), job.file_bytes)
    _limit(job)
    _prctl(libc, "no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
    _restrict_files(libc, job)
    if job.unprivileged_user is not None:
        _become(job.unprivileged_user)
    _drop_capabilities(libc)
    _prctl(libc, "dumpable", _PR_SET_DUMPABLE, 0)  # no core dump, no inspection by other processes of this user
    _prctl(libc, "parent death signal", _PR_SET_PDEATHSIG, _SIGKILL)  # after the change of user, which clears it
    if os.getppid() != job.parent:
        raise OSError("the parent process has ended")
    program = _FilterProgram(len(job.system_call_filter) // 8, job.system_call_filter)
    _prctl(libc, "seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


def mount_own_files(libc: ctypes.CDLL, user: int, size: int) -> None:
    """Mount a private in-memory file system over the working folder and enter it.

    The kernel counts the pages of all its files, named or deleted. An ordinary user needs a user namespace for it. Size
    0 would mean no limit; with 0 bytes RLIMIT_FSIZE refuses all writes.
    """
    ordinary = os.getuid() != 0
    groups = os.getgid()
    if libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if ordinary else 0)) != 0:
        raise _failure("a mount namespace (unshare)")
    if ordinary:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{groups} {groups} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None) != 0:
        raise _failure("private mounts")
    group = groups if ordinary else user
    options = f"size={max(size, 1)},nr_inodes={_FILE_NAMES},mode=700,uid={user},gid={group}".encode()
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if libc.mount(b"tmpfs", b".", b"tmpfs", flags, options) != 0:
        raise _failure("a private file system (mount)")
    os.chdir(os.getcwd())  # by path, which now leads to the mounted file system


def _limit(job: Job) -> None:
    import resource  # not available on every system that imports this file

    wanted = {
        "RLIMIT_AS": (job.memory_bytes, job.memory_bytes),
        # SIGXCPU distinguishes a timeout; a program that ignores it is killed one second later.
        "RLIMIT_CPU": (job.cpu_seconds, job.cpu_seconds + 1),
        "RLIMIT_FSIZE": (job.file_bytes, job.file_bytes),
        "RLIMIT_NOFILE": (_OPEN_FILES, _OPEN_FILES),
        "RLIMIT_CORE": (0, 0),
        # The limit counts all processes of the user, but only stops this process from creating another.
        "RLIMIT_NPROC": (0, 0),
    }
    for name, (soft, hard) in wanted.items():
        which = getattr(resource, name)
        try:
            ceiling = resource.getrlimit(which)[1]
            if ceiling != resource.RLIM_INFINITY:
                soft, hard = min(soft, ceiling), min(hard, ceiling)  # noqa: PLW2901 - a lower limit is kept
            resource.setrlimit(which, (soft, hard))
        except (OSError, ValueError) as error:  # Python raises ValueError for EPERM
            raise OSError(f"{name}: {error}") from None


def _restrict_files(libc: ctypes.CDLL, job: Job) -> None:
    version = job.landlock_version
    rights = (1 << _RIGHTS_BY_VERSION.get(version, _RIGHTS_OF_LATER_VERSIONS)) - 1
    network = 0b11 if version >= 4 else 0  # binding and connecting TCP
    scopes = 0b11 if version >= 6 else 0  # abstract sockets and signals
    attributes = struct.pack("=QQQ", rights, network, scopes)
    ruleset = _call(libc, "landlock", _LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    working_folder_rights = _READ_FILE | _READ_DIR
    if job.own_files:
        working_folder_rights |= _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
    grants = [(folder, _READ_FILE | _READ_DIR) for folder in job.readable]
    for folder, granted in [*grants, (".", working_folder_rights & rights)]:
        if not os.path.isdir(folder):
            continue
        descriptor = os.open(folder, os.O_PATH)
        rule = struct.pack("=Qi", granted, descriptor)
        _call(libc, "landlock", _LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)
    _call(libc, "landlock", _LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def landlock_version() -> int:
    """Version of Landlock in this kernel; 0 for none."""
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
    mount_own_files(ctypes.CDLL(None, use_errno=True), os.getuid(), 0)
