"""Files and folders on their way: written under a temporary name, held while they are, and swept after a kill.

A temporary file or folder is locked for as long as its process lives. What bears such a name and is locked by nobody
was left by a process that was killed; the next one that writes the same output removes it.
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
"""Seconds for which a temporary name that is not yet locked is left alone: another process may just have made it."""

_RANDOM = "(?![0-9]{8})[a-z0-9_]{8}"
"""What `tempfile` adds to a name; eight digits are rather a date, and left alone."""
_EARLIER = re.compile(rf"\..+\.(?:csv|html|json|md|parquet|png|safetensors|svg|yaml)-{_RANDOM}")
"""What earlier versions called temporary files."""


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, to be written and renamed; removed at the end of the block where it is left."""
    sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        aside = _locked(Path(name), handle, path)
        try:
            yield aside
        finally:
            aside.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, to be filled and renamed; removed at the end of the block where it is left."""
    sweep(path)
    name = tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent)
    handle = os.open(name, os.O_RDONLY)
    try:
        aside = _locked(Path(name), handle, path)
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder `prunelab-PURPOSE` in the system's folder for temporary files; those that kills left are swept.

    Args:
        purpose: a word.
    """
    with unfinished_folder(Path(tempfile.gettempdir()) / f"prunelab-{purpose}") as folder:
        yield folder


def _locked(aside: Path, handle: int, path: Path) -> Path:
    """Lock a temporary file or folder, and only then give it the name by which an unlocked one is swept."""
    with suppress(OSError):  # a disk that knows no locks: what is left there stays
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return aside.rename(aside.with_name(f".{path.name}{MARK}{aside.name[-8:]}"))


def replace_folder(aside: Path, path: Path) -> None:
    """Put a folder in the place of another; a kill between the two renames is mended by `sweep`."""
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
    """Remove what killed processes left of writing a file or folder; a folder moved away for another comes back.

    Only what a process of prunelab can have left is removed: a user may keep `.NAME-20261201` or `.NAME-old-copy`.

    Args:
        path: the output.
        earlier: earlier versions' temporary files go as well, which held content under a name that a user could choose.
    """
    name = glob.escape(path.name)
    if not os.path.isdir(path.parent):
        return
    for left in path.parent.glob(f".{name}{OLD}????????"):
        held = _entries(left) if re.fullmatch(_RANDOM, left.name[-8:]) else None
        if held in ([], ["old"]) and _abandoned(left, young=not held):
            if held and not os.path.lexists(path):
                (left / "old").rename(path)
            _remove(left)
    for left in path.parent.glob(f".{name}{MARK}????????"):
        if re.fullmatch(_RANDOM, left.name[-8:]) and _abandoned(left):
            _remove(left)
    for left in path.parent.glob(f".{name}-????????"):
        if (
            re.fullmatch(_RANDOM, left.name[-8:])
            and (earlier or _is_empty(left))
            and _abandoned(left, young=not earlier)
        ):
            _remove(left)


def sweep_below(folder: Path) -> None:
    """Remove what killed processes left of writing files anywhere below a folder in which only prunelab writes."""
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            left = Path(place, name)
            marked = name.startswith(".") and re.search(rf"{MARK}{_RANDOM}$", name) is not None
            if (marked or (name in files and _EARLIER.fullmatch(name))) and _abandoned(left):
                _remove(left)
                if name in folders:
                    folders.remove(name)


def _entries(folder: Path) -> list[str] | None:
    """The names in a folder; None for anything else."""
    try:
        return os.listdir(folder) if not folder.is_symlink() else None
    except OSError:
        return None


def _is_empty(left: Path) -> bool:
    """Whether it is a file or a folder that was made and not yet written, as between the making and the renaming."""
    held = _entries(left)
    with suppress(OSError):
        return held == [] or (held is None and left.is_file() and os.lstat(left).st_size == 0)
    return False


def _abandoned(left: Path, young: bool = False) -> bool:
    """Whether no process holds it; a disk that cannot tell says no.

    Args:
        left: a temporary file or folder.
        young: one that was changed less than `YOUNG` seconds ago may be about to be locked.
    """
    try:
        handle = os.open(left, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
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


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with suppress(OSError):
            left.unlink()
