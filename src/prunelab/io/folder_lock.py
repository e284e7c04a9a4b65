"""A lock that allows one process at a time in a folder, for studies and streamed calibrations."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunelab.errors import InvalidRequest

LOCK = ".lock"
# Errors of file systems without locks, as on some clusters: there, concurrent use cannot be detected.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(
    folder: Path, work: str = "study", remedy: str = "wait until it has finished, or give another --out"
) -> Iterator[str]:
    """Lock a folder inside the block; the lock is released if the process dies.

    Args:
        folder: created if missing.
        work: what is done in the folder, for the error message.
        remedy: what to do if another process holds the lock, for the error message.

    Yields:
        A token, stored in the lock file, by which other processes can verify that they see the same folder.

    Raises:
        InvalidRequest: another process holds the lock; with its id and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _, _, owner = os.pread(handle, 200, 0).decode(errors="replace").strip().partition(" ")
            raise InvalidRequest(
                f"{folder} is in use by another {work} ({owner or 'just started'}): {remedy}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        token = uuid.uuid4().hex[:12]
        line = f"{token} process {os.getpid()} on {socket.gethostname()}\n".encode()
        os.pwrite(handle, line, 0)
        os.ftruncate(handle, len(line))  # truncate last: a kill in between must not leave an empty file
        yield token
    finally:
        os.close(handle)


def holds(folder: Path, token: str) -> bool:
    """Whether a folder on this machine is the one locked with `token`."""
    try:
        return (folder / LOCK).read_text(encoding="utf-8").partition(" ")[0] == token
    except (OSError, ValueError):
        return False
