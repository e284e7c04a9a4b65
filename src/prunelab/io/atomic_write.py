"""Writing so that nothing is ever half there: aside first, then renamed."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from safetensors import SafetensorError

from prunelab.errors import DiskFull, InvalidRequest, OutputExists


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors writes from Rust and reports the same as a text.
    return isinstance(error, SafetensorError) and "No space left" in str(error)


def _is_forbidden(error: BaseException) -> TypeGuard[OSError]:
    forbidding = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
    return isinstance(error, OSError) and error.errno in forbidding


def _unwritable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be written ({os.strerror(error.errno or 0)}): choose another place, or mend its permissions"
    )


@contextmanager
def named_when_it_fails(path: Path) -> Iterator[None]:
    """A disk that is full, or a place that may not be written to, is an error that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _is_forbidden(error):
            raise _unwritable(path, error) from error
        if not _is_full(error):
            raise
        raise DiskFull(f"no space left while writing {path}: free some, or choose another place") from error


def require_space(path: Path, needed: int) -> None:
    """Refuse to begin writing `needed` bytes where the disk cannot hold them.

    Raises:
        DiskFull: naming both figures.
    """
    there = next(parent for parent in [path.absolute(), *path.absolute().parents] if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DiskFull(
            f"{path} needs {needed / 1e9:.3g} GB and its disk has {free / 1e9:.3g} GB left: free some, or choose "
            "another place"
        )


def require_place(path: Path) -> None:
    """Refuse a place that cannot come to be, because something above it is a file or may not be written to.

    Raises:
        InvalidRequest: naming what is above it.
    """
    with named_when_it_fails(path):
        above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InvalidRequest(f"{path} cannot be written: {above} is a file, not a folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InvalidRequest(
            f"{path} cannot be written: nothing may be written to {above}; choose another place, or mend its "
            "permissions"
        )


def refuse_existing(path: Path, overwrite: bool, folder: bool = False) -> None:
    """Refuse an output that exists unless it may be overwritten, and one that is not of the kind to be written.

    A folder is only overwritten where it holds a checkpoint or nothing: never someone's other files.

    Raises:
        OutputExists: it exists, and may not be overwritten.
        InvalidRequest: its place cannot come to be.
    """
    require_place(path)
    with named_when_it_fails(path):
        if not path.exists():
            return
    if not (path.is_dir() or path.is_file()):
        raise OutputExists(f"{path} is neither a file nor a folder, and is not replaced: choose another place")
    if folder != path.is_dir():
        kinds = ("file", "folder") if folder else ("folder", "file")
        raise OutputExists(f"{path} is a {kinds[0]}, and a {kinds[1]} is to be written: choose another place")
    if not overwrite:
        raise OutputExists(f"{path} exists: choose another place, or give --overwrite")
    if folder and any(path.iterdir()) and not (path / "config.json").exists():
        raise OutputExists(
            f"{path} holds something else than a checkpoint and is not overwritten: choose another place"
        )


def refuse_own(path: Path, models: Iterable[str]) -> None:
    """Refuse to write over a model that is read: even where overwriting is asked for, that one is not meant.

    Raises:
        InvalidRequest: it is one of them.
    """
    for model in models:
        if path.exists() and Path(model).exists() and path.samefile(model):
            raise InvalidRequest(f"{path} is the model itself: choose another place")


@contextmanager
def _begun(path: Path) -> Iterator[None]:
    """The folder above is made; where the system lets nothing be made (`/proc`) it says that there is no such file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except FileNotFoundError as error:
        raise _unwritable(path, error) from error


@contextmanager
def written_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        OutputExists: `path` exists and `overwrite` is false.
        DiskFull: the disk filled up; nothing is left behind.
        InvalidRequest: the place cannot be written.
    """
    refuse_existing(path, overwrite, folder=True)
    with named_when_it_fails(path):
        with _begun(path):
            remove_unfinished(path)
            aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        with _held(aside):
            # Only now, since one by this name that nobody holds is removed.
            aside = aside.rename(aside.with_name(f"{_unfinished(path)}{aside.name[-8:]}"))
            try:
                yield aside
                aside.chmod(0o777 & ~_umask())
                for file in aside.rglob("*"):
                    if file.is_file():  # safetensors makes them the writer's alone
                        file.chmod(0o666 & ~_umask())
                _replace(aside, path)
            finally:
                shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(path: Path) -> None:
    """Remove what a process that was killed has left of writing a folder."""
    for left in path.parent.glob(f"{glob.escape(_unfinished(path))}*"):
        with _held(left) as ours:
            if ours:
                shutil.rmtree(left, ignore_errors=True)


def _unfinished(path: Path) -> str:
    return f".{path.name}-unfinished-"


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder as long as the block lasts; false where another process does, or where the disk cannot tell."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = True
    except OSError:
        ours = False
    try:
        yield ours
    finally:
        os.close(handle)


def _replace(aside: Path, path: Path) -> None:
    if not path.exists():
        aside.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent)) / "old"
    path.rename(old)
    aside.rename(path)
    shutil.rmtree(old.parent)


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes when it does not."""
    with named_when_it_fails(path):
        with _begun(path):
            handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        aside = Path(name)
        try:
            yield aside
            aside.chmod(0o666 & ~_umask())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
