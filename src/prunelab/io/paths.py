"""Path checks: which paths are valid, what may be written where, and what lies inside a folder.

An output is a local path. It replaces a file or a folder only if prunelab wrote it, and never a link, a device, a FIFO
or a socket.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from prunelab.errors import CheckpointError, InvalidRequest, OutputExists
from prunelab.errors.text import one_line

NAME_BYTES = 255
"""Maximum length of a file name on Linux file systems."""

PATH_BYTES = 4095
"""Maximum length of a path in Linux system calls."""

SPARE_BYTES = 24
"""Bytes that temporary names add to the name of an output."""

UNUSABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP,
    errno.ENXIO, errno.EINVAL, errno.EFBIG, errno.EILSEQ,
)  # fmt: skip
"""Error numbers that mean that a path itself cannot be used."""

_NEITHER = "neither a file nor a folder"
_OTHER = {"link": "not a file or folder itself"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""One slash, because `pathlib` collapses two into one."""


def local_path(path: str | os.PathLike[str], use: str = "used") -> Path:
    """Check that a path is a valid local path.

    Args:
        path: the path.
        use: what the path is for, such as `written`, for the message.

    Raises:
        InvalidRequest: a URL, an empty text, NUL or another control character, bytes that are not UTF-8, or names too
            long for a file system.
    """
    text = os.fspath(path)
    shown = shortened(text)
    if not text:
        raise InvalidRequest("the path is empty: give a file or a folder")
    if _URL.match(text):
        raise InvalidRequest(f"{shown} is a URL: give a path on this machine")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise InvalidRequest(
            f"{shown} contains a control character, which is not allowed in paths: choose another name"
        )
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(f"{shown} is not UTF-8: choose another name") from None
    longest = max(len(part) for part in encoded.split(b"/"))
    if longest > NAME_BYTES or len(encoded) > PATH_BYTES:
        raise InvalidRequest(
            f"{shown} cannot be {use} (File name too long): a name has at most {NAME_BYTES} bytes and a path "
            f"{PATH_BYTES}; choose a shorter one"
        )
    return Path(text)


LocalPath = Annotated[Path, AfterValidator(local_path)]
"""Type of a pydantic field that holds a local path."""


def shortened(path: str | os.PathLike[str]) -> str:
    """Format a path for a message: unprintable characters are escaped, and a long path is cut in the middle."""
    return one_line(os.fspath(path), 200)


def model_name(name: str) -> str:
    """Check that a name can be a checkpoint folder or a hub id.

    Raises:
        CheckpointError: it is neither; see `local_path`.
    """
    try:
        local_path(name)
    except InvalidRequest as error:
        raise CheckpointError(f"not a model name: {error}; give a folder, or a hub id such as ORG/NAME") from None
    return name


def require_utf8(arguments: Sequence[str]) -> None:
    """Refuse command-line arguments that are not UTF-8.

    Raises:
        InvalidRequest: with the first such argument.
    """
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidRequest(f"{shortened(argument)} is not UTF-8: rename it") from None


def path_fault(error: OSError) -> str | None:
    """Message about a path that the system refused; None if the error has another cause."""
    if error.errno not in UNUSABLE or not isinstance(error.filename, str | bytes):
        return None
    path = os.fsdecode(error.filename)
    return (
        f"{shortened(path)} cannot be used ({os.strerror(error.errno)}): give another path, or change its permissions"
    )


def kind_of(path: Path) -> str | None:
    """The kind of file at a path, without following links; None if the path does not exist.

    Raises:
        InvalidRequest: the path cannot be inspected.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unusable(path, error) from error
    kinds = {
        stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "special file")


def unusable(path: Path, error: OSError | ValueError) -> InvalidRequest:
    """The error for a path that the system refuses."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return InvalidRequest(
        f"{shortened(path)} cannot be used as a path ({reason}): choose another path, or change its permissions"
    )


def ensure_writable(path: Path) -> None:
    """Refuse a path that cannot be created: invalid, below a file, in a loop of links, or without write permission.

    Raises:
        InvalidRequest: with the obstacle.
    """
    local_path(path, "written")
    shown = shortened(path)
    if len(os.fsencode(path.name)) > NAME_BYTES - SPARE_BYTES:
        raise InvalidRequest(
            f"{shown} cannot be written (File name too long): the name of an output has at most "
            f"{NAME_BYTES - SPARE_BYTES} bytes; choose a shorter one"
        )
    if path.name in ("", ".."):
        raise InvalidRequest(f"{shown} does not name a file or folder: give one")
    above = _nearest_above(path)
    if not above.is_dir():
        raise InvalidRequest(f"{shown} cannot be written: {above} is a file, not a folder; choose another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InvalidRequest(
            f"{shown} cannot be written: {above} is not writable; choose another path, or change its permissions"
        )


def _nearest_above(path: Path) -> Path:
    """The nearest existing ancestor of a path."""
    for parent in path.absolute().parents:
        try:
            os.stat(parent)
        except FileNotFoundError:
            if parent.is_symlink():
                raise InvalidRequest(
                    f"{shortened(path)} cannot be written: {parent} is a broken link; choose another path"
                ) from None
        except NotADirectoryError:
            continue
        except (OSError, ValueError) as error:
            raise unusable(path, error) from error
        else:
            return parent
    raise unusable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _exists_as(expected: Literal["file", "folder"], path: Path, overwrite: bool) -> bool:
    """Whether an output exists already, as the expected kind and replaceable.

    Raises:
        OutputExists: it exists as something else, or may not be replaced.
        InvalidRequest: the path cannot be created.
    """
    ensure_writable(path)
    kind, shown = kind_of(path), shortened(path)
    if kind is None:
        return False
    if kind in ("file", "folder") and kind != expected:
        raise OutputExists(f"{shown} is a {kind}, and the output is a {expected}: choose another path")
    if kind != expected:
        raise OutputExists(
            f"{shown} is a {kind}, {_OTHER.get(kind, _NEITHER)}, and is not replaced: choose another path"
        )
    if not overwrite:
        raise OutputExists(f"{shown} exists: choose another path, or give --overwrite")
    return True


def require_output_file(
    path: Path, overwrite: bool, is_ours: Callable[[Path], bool] | None = None, what: str = "an output of prunelab"
) -> None:
    """Refuse an existing output file, unless it may be overwritten and prunelab wrote it.

    Args:
        path: the file.
        overwrite: whether it may be replaced.
        is_ours: whether an existing, non-empty regular file is an output of the same kind; any file is, if not given.
        what: the kind of output, for the message.

    Raises:
        OutputExists: it exists and may not be replaced.
        InvalidRequest: the path cannot be created.
    """
    if not _exists_as("file", path, overwrite):
        return
    shown = shortened(path)
    try:
        ours = os.lstat(path).st_size == 0 or is_ours is None or is_ours(path)
    except OSError as error:
        raise unusable(path, error) from error
    if not ours:
        raise OutputExists(f"{shown} exists and is not {what}, so it is not overwritten: choose another path")


def require_output_folder(
    path: Path, overwrite: bool, foreign: Callable[[Path], str | None], what: str = "an output of prunelab"
) -> None:
    """Refuse an existing output folder, unless it may be overwritten and only holds files that prunelab wrote.

    Args:
        path: the folder.
        overwrite: whether it may be replaced.
        foreign: describes content of a non-empty folder that prunelab did not write; None if there is none.
        what: the kind of output, for the message.

    Raises:
        OutputExists: it exists and may not be replaced.
        InvalidRequest: the path cannot be created.
    """
    if not _exists_as("folder", path, overwrite):
        return
    shown = shortened(path)
    try:
        stranger = foreign(path) if any(path.iterdir()) else None
    except OSError as error:
        raise unusable(path, error) from error
    if stranger is not None:
        raise OutputExists(
            f"{shown} contains something other than {what} ({stranger}), so it is not overwritten: choose another path"
        )


def inside(folder: Path, name: str) -> Path:
    """The path of a name below a folder, checked with links resolved.

    Raises:
        InvalidRequest: the name is absolute, contains `..`, or leaves the folder through a link.
    """
    shown = shortened(name)
    path = folder / local_path(name)
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts:
        raise InvalidRequest(f"{shown} is not a path inside {folder}")
    try:
        resolved = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise InvalidRequest(f"{shown} is not a path inside {folder} ({error})") from None
    if not resolved[0].is_relative_to(resolved[1]):
        raise InvalidRequest(f"{shown} leaves {folder} through a link")
    return path
