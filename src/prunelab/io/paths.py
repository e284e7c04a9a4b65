"""One rule for paths: what may be written where, and what lies inside a folder.

An output is a local path. It replaces a file or a folder only where prunelab wrote it, and never a link, a device, a
FIFO or a socket.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from prunelab.errors import CheckpointError, InvalidRequest, OutputExists
from prunelab.errors.text import one_line

NAME_BYTES = 255
"""The longest name that Linux's file systems hold."""

PATH_BYTES = 4095
"""The longest path that Linux's system calls take."""

SPARE_BYTES = 24
"""What temporary names add to the name of a file or folder that is written."""

UNUSABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP,
    errno.ENXIO, errno.EINVAL, errno.EFBIG, errno.EILSEQ,
)  # fmt: skip
"""What the system answers where a path itself cannot be used."""

_NEITHER = "neither a file nor a folder"
_OTHER = {"link": "not a file or folder itself"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""`pathlib` makes one slash of two."""


def local_path(path: str | os.PathLike[str], use: str = "used") -> Path:
    """A path that can be one of this machine's.

    Args:
        path: the path.
        use: what cannot be done with a bad one, such as `written`, for the message.

    Raises:
        InvalidRequest: a URL, an empty text, NUL or another control character, bytes that are not UTF-8, or names too
            long for a file system.
    """
    text = os.fspath(path)
    shown = shortened(text)
    if not text:
        raise InvalidRequest("an empty path was given: give a file or a folder")
    if _URL.match(text):
        raise InvalidRequest(f"{shown} is a URL: give a path on this machine")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise InvalidRequest(f"{shown} holds a control character, which no path here may: choose another name")
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
"""A field of a pydantic model that holds a path of this machine."""


def shortened(path: str | os.PathLike[str]) -> str:
    """A path for a message: escaped where it cannot be printed, its middle left out where it is long."""
    return one_line(os.fspath(path), 200)


def model_name(name: str) -> str:
    """A name that can be a checkpoint's folder or an id on the hub.

    Raises:
        CheckpointError: it is neither; see `local_path`.
    """
    try:
        local_path(name)
    except InvalidRequest as error:
        raise CheckpointError(f"no model can be called so: {error}; give a folder, or an id such as ORG/NAME") from None
    return name


def require_utf8(arguments: Sequence[str]) -> None:
    """Refuse arguments of a command that are not UTF-8.

    Raises:
        InvalidRequest: naming the first one.
    """
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidRequest(f"{shortened(argument)} is not UTF-8: rename it") from None


def path_fault(error: OSError) -> str | None:
    """What is wrong with a path that the system refused, in words; None where the error is about something else."""
    if error.errno not in UNUSABLE or not isinstance(error.filename, str | bytes):
        return None
    path = os.fsdecode(error.filename)
    return f"{shortened(path)} cannot be used ({os.strerror(error.errno)}): give another path, or mend its permissions"


def kind_of(path: Path) -> str | None:
    """What lies at a path, links not followed, in words; None where nothing does.

    Raises:
        InvalidRequest: the path cannot be looked at.
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
    """The refusal of a path that the system refuses."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return InvalidRequest(
        f"{shortened(path)} cannot be used as a path ({reason}): choose another place, or mend its permissions"
    )


def ensure_writable(path: Path) -> None:
    """Refuse a place that cannot come to be: a bad path, below a file, in a loop of links, or where writing is denied.

    Raises:
        InvalidRequest: naming what is in the way.
    """
    local_path(path, "written")
    shown = shortened(path)
    if len(os.fsencode(path.name)) > NAME_BYTES - SPARE_BYTES:
        raise InvalidRequest(
            f"{shown} cannot be written (File name too long): the name of an output has at most "
            f"{NAME_BYTES - SPARE_BYTES} bytes; choose a shorter one"
        )
    if path.name in ("", ".."):
        raise InvalidRequest(f"{shown} names no file or folder to write: give one")
    above = _nearest_above(path)
    if not above.is_dir():
        raise InvalidRequest(f"{shown} cannot be written: {above} is a file, not a folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InvalidRequest(
            f"{shown} cannot be written: nothing may be written to {above}; choose another place, or mend its "
            "permissions"
        )


def _nearest_above(path: Path) -> Path:
    """The nearest thing above a path that exists."""
    for parent in path.absolute().parents:
        try:
            os.stat(parent)
        except FileNotFoundError:
            if parent.is_symlink():
                raise InvalidRequest(
                    f"{shortened(path)} cannot be written: {parent} is a link to nothing; choose another place"
                ) from None
        except NotADirectoryError:
            continue
        except (OSError, ValueError) as error:
            raise unusable(path, error) from error
        else:
            return parent
    raise unusable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def require_output_file(
    path: Path, overwrite: bool, is_ours: Callable[[Path], bool] | None = None, what: str = "an output of prunelab"
) -> None:
    """Refuse an output file that exists, unless it may be overwritten and prunelab wrote it.

    Args:
        path: the file.
        overwrite: it may be replaced.
        is_ours: whether an existing, non-empty regular file is of the kind that is written; every one, if not given.
        what: what is written, for the message.

    Raises:
        OutputExists: it exists and may not be replaced.
        InvalidRequest: its place cannot come to be.
    """
    ensure_writable(path)
    kind, shown = kind_of(path), shortened(path)
    if kind is None:
        return
    if kind == "folder":
        raise OutputExists(f"{shown} is a folder, and a file is to be written: choose another place")
    if kind != "file":
        raise OutputExists(
            f"{shown} is a {kind}, {_OTHER.get(kind, _NEITHER)}, and is not replaced: choose another place"
        )
    if not overwrite:
        raise OutputExists(f"{shown} exists: choose another place, or give --overwrite")
    try:
        ours = os.lstat(path).st_size == 0 or is_ours is None or is_ours(path)
    except OSError as error:
        raise unusable(path, error) from error
    if not ours:
        raise OutputExists(f"{shown} exists and is not {what}, so it is not overwritten: choose another place")


def require_output_folder(
    path: Path, overwrite: bool, foreign: Callable[[Path], str | None], what: str = "an output of prunelab"
) -> None:
    """Refuse an output folder that exists, unless it may be overwritten and holds nothing but what prunelab wrote.

    Args:
        path: the folder.
        overwrite: it may be replaced.
        foreign: names what in an existing, non-empty folder prunelab did not write; None where there is nothing.
        what: what is written, for the message.

    Raises:
        OutputExists: it exists and may not be replaced.
        InvalidRequest: its place cannot come to be.
    """
    ensure_writable(path)
    kind, shown = kind_of(path), shortened(path)
    if kind is None:
        return
    if kind == "file":
        raise OutputExists(f"{shown} is a file, and a folder is to be written: choose another place")
    if kind != "folder":
        raise OutputExists(
            f"{shown} is a {kind}, {_OTHER.get(kind, _NEITHER)}, and is not replaced: choose another place"
        )
    if not overwrite:
        raise OutputExists(f"{shown} exists: choose another place, or give --overwrite")
    try:
        stranger = foreign(path) if any(path.iterdir()) else None
    except OSError as error:
        raise unusable(path, error) from error
    if stranger is not None:
        raise OutputExists(
            f"{shown} holds something else than {what} ({stranger}) and is not overwritten: choose another place"
        )


def inside(folder: Path, name: str) -> Path:
    """The path of a name below a folder, links resolved for the check.

    Raises:
        InvalidRequest: the name is absolute, has `..` in it, or leads out of the folder by a link.
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
        raise InvalidRequest(f"{shown} leads out of {folder} by a link")
    return path
