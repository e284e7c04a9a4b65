"""Temporary files and folders for atomic writes, locked while in use and removed after a killed process.

A temporary file or folder is locked while its process lives. An unlocked one was left by a killed process; the next
process that writes the same output removes it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "-unfinished-"
OLD = "-old-"
YOUNG = 60.0
"""Age in seconds below which an unlocked temporary name is kept: another process may be about to lock it."""

_RANDOM = "(?![0-9]{8})[a-z0-9_]{8}"
"""What `tempfile` adds to a name; eight digits are rather a date, and is left alone."""
_EARLIER = re.compile(rf"\..+\.(?:csv|html|json|md|parquet|png|safetensors|svg|yaml)-{_RANDOM}")
"""Names of temporary files of earlier versions."""


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """An empty temporary file next to `path`, to be written and renamed; removed after the block if it is left."""
    sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        temporary = _locked(Path(name), handle, path)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder next to `path`, to be filled and renamed; removed after the block if it is left."""
    sweep(path)
    name = tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent)
    handle = os.open(name, os.O_RDONLY)
    try:
        temporary = _locked(Path(name), handle, path)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder `prunelab-PURPOSE` in the system's temporary folder; removes those left by killed processes.

    Args:
        purpose: a word for the folder's name.
    """
    with unfinished_folder(Path(tempfile.gettempdir()) / f"prunelab-{purpose}") as folder:
        yield folder


def _locked(aside: Path, handle: int, path: Path) -> Path:
    """Lock a temporary file or folder before renaming it to a name that is removed when unlocked."""
    with suppress(OSError):  # without locks, leftovers stay on this file system
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return aside.rename(aside.with_name(f".{path.name}{MARK}{aside.name[-8:]}"))


def replace_folder(aside: Path, path: Path) -> None:
    """Replace a folder by another; `sweep` recovers from a kill between the two renames."""
    if not path.exists():
        aside.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}{OLD}", dir=path.parent))
    handle = os.open(old, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.rename(old / "old")
        aside.rename(path)
        shutil.rmtree(old)
    finally:
        os.close(handle)


def sweep(path: Path, earlier: bool = False) -> None:
    """Remove what killed processes left next to an output, and restore a folder that they had moved away.

    Only what a process of prunelab can have left is removed: a user may keep `.NAME-20261201` or `.NAME-old-copy`.

    Args:
        path: the output.
        earlier: also remove temporary files of earlier versions, whose names a user could choose.
    """
    name = glob.escape(path.name)
    if not os.path.isdir(path.parent):
        return
    for leftover in path.parent.glob(f".{name}{OLD}????????"):
        held = _entries(leftover) if re.fullmatch(_RANDOM, leftover.name[-8:]) else None
        if held in ([], ["old"]) and _abandoned(leftover, young=not held):
            if held and not os.path.lexists(path):
                (leftover / "old").rename(path)
            _remove(leftover)
    for leftover in path.parent.glob(f".{name}{MARK}????????"):
        if re.fullmatch(_RANDOM, leftover.name[-8:]) and _abandoned(leftover):
            _remove(leftover)
    for leftover in path.parent.glob(f".{name}-????????"):
        if (
            re.fullmatch(_RANDOM, leftover.name[-8:])
            and (earlier or _is_empty(leftover))
            and _abandoned(leftover, young=not earlier)
        ):
            _remove(leftover)


def sweep_below(folder: Path) -> None:
    """Remove what killed processes left of writing files anywhere below a folder in which only prunelab writes."""
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            leftover = Path(place, name)
            marked = name.startswith(".") and re.search(rf"{MARK}{_RANDOM}$", name) is not None
            if (marked or (name in files and _EARLIER.fullmatch(name))) and _abandoned(leftover):
                _remove(leftover)
                if name in folders:
                    folders.remove(name)


def _entries(folder: Path) -> list[str] | None:
    """The names in a folder; None for anything else."""
    try:
        return os.listdir(folder) if not folder.is_symlink() else None
    except OSError:
        return None


def _is_empty(leftover: Path) -> bool:
    """Whether it is an empty file or folder, as after a kill between creation and the first write."""
    held = _entries(leftover)
    with suppress(OSError):
        return held == [] or (held is None and leftover.is_file() and os.lstat(leftover).st_size == 0)
    return False


def _abandoned(leftover: Path, young: bool = False) -> bool:
    """Whether no process holds the lock; False if the file system cannot tell.

    Args:
        leftover: a temporary file or folder.
        young: keep one that was changed less than `YOUNG` seconds ago, which may be about to be locked.
    """
    try:
        handle = os.open(leftover, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid() or (young and time.time() - status.st_mtime < YOUNG):
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _remove(leftover: Path) -> None:
    if leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        with suppress(OSError):
            leftover.unlink()
