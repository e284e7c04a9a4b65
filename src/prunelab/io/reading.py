"""Read a complete file into memory: only regular files, up to a size limit, as UTF-8."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from prunelab.errors import DataError, PrunelabError
from prunelab.errors.text import one_line

MIB = 1 << 20


def read_bytes(
    path: Path | str,
    *,
    error: type[PrunelabError] = DataError,
    limit: int = 16 * MIB,
    remedy: str = "give another file",
) -> bytes:
    """Read the bytes of a regular file.

    FIFOs, devices, sockets and folders are refused without blocking.

    Args:
        path: the file; symbolic links are followed.
        error: class of the errors raised.
        limit: maximum size in bytes.
        remedy: what the user can do, at the end of every message.

    Raises:
        PrunelabError: of class `error`: missing, unreadable, not a regular file, or larger than the limit.
    """
    shown = one_line(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0))
    except OSError as problem:
        raise error(f"{shown} {_unopened(problem)}: {remedy}") from problem
    except ValueError as problem:  # NUL or a lone surrogate, which file names cannot contain
        raise error(f"{shown} is not a valid path ({one_line(problem)}): {remedy}") from problem
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise error(f"{shown} is {kind}: {remedy}")
        if status.st_size > limit:
            raise error(f"{shown} has {status.st_size:,} bytes, more than the {limit:,} allowed here: {remedy}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)  # a file in /proc reports size 0 and may be endless
    except OSError as problem:
        raise error(f"{shown} cannot be read ({problem.strerror}): {remedy}") from problem
    finally:
        os.close(handle)
    if len(content) > limit:
        raise error(f"{shown} has more than the {limit:,} bytes allowed here: {remedy}")
    return content


def read_text(
    path: Path | str,
    *,
    error: type[PrunelabError] = DataError,
    limit: int = 16 * MIB,
    remedy: str = "give another file",
) -> str:
    """Read a regular UTF-8 file, without its byte order mark. Arguments and errors as in `read_bytes`."""
    content = read_bytes(path, error=error, limit=limit, remedy=remedy)
    return decoded(content, source=one_line(path), error=error)


def decoded(content: bytes, *, source: str, error: type[PrunelabError] = DataError, line: int = 1) -> str:
    """Decode UTF-8 bytes, without a byte order mark.

    Args:
        content: the bytes.
        source: their name for messages.
        error: class of the error raised.
        line: line of the source on which the bytes begin.

    Raises:
        PrunelabError: of class `error`, with the line of the first byte that is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line += problem.object.count(b"\n", 0, problem.start)
        byte = problem.object[problem.start]
        raise error(f"{source}, line {line}: byte 0x{byte:02x} is not UTF-8: convert it to UTF-8 first") from problem


def _unopened(problem: OSError) -> str:
    if problem.errno == errno.ENOENT:
        return "does not exist"
    return f"cannot be read ({problem.strerror})"
