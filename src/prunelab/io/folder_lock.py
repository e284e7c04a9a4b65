"""One process at a time in a folder: a study in its run's, a calibration in that of its hidden states."""

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
# What a disk answers that knows no locks, such as some clusters' file systems: there nobody can tell.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(
    folder: Path, work: str = "study", remedy: str = "wait until it is done, or give another --out"
) -> Iterator[str]:
    """Hold a folder for as long as the block lasts; a process that dies lets go of it.

    Args:
        folder: made where it is not there.
        work: what is done in it, for the error.
        remedy: what to do where another process does it, for the error.

    Yields:
        A token that the folder's lock file holds meanwhile, by which others can tell that they see the same folder.

    Raises:
        InvalidRequest: another process holds it; naming which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _, _, who = os.pread(handle, 200, 0).decode(errors="replace").strip().partition(" ")
            raise InvalidRequest(f"{folder} is in use by another {work} ({who or 'just begun'}): {remedy}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        token = uuid.uuid4().hex[:12]
        line = f"{token} process {os.getpid()} on {socket.gethostname()}\n".encode()
        os.pwrite(handle, line, 0)
        os.ftruncate(handle, len(line))  # behind: a kill in between must not leave an empty file
        yield token
    finally:
        os.close(handle)


def holds(folder: Path, token: str) -> bool:
    """Whether a folder seen here is the one that is held under a token."""
    try:
        return (folder / LOCK).read_text(encoding="utf-8").partition(" ")[0] == token
    except (OSError, ValueError):
        return False
