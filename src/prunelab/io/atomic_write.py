"""Writing so that nothing is ever half there: aside first, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeGuard

from safetensors import SafetensorError

from prunelab.errors import DiskFull, InvalidRequest
from prunelab.io.outputs import foreign_to_checkpoint
from prunelab.io.paths import UNUSABLE, ensure_writable, require_output_file, require_output_folder
from prunelab.io.unfinished import replace_folder, unfinished_file, unfinished_folder
from prunelab.io.unfinished import sweep as remove_unfinished

__all__ = [
    "atomic_file",
    "atomic_folder",
    "ensure_writable",
    "refuse_existing",
    "refuse_input_path",
    "remove_unfinished",
    "report_os_errors",
    "require_space",
    "write_text",
]


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors writes from Rust and reports the same as a text.
    return isinstance(error, SafetensorError) and "No space left" in str(error)


def _is_unusable(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in UNUSABLE


def _unwritable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be written ({os.strerror(error.errno or 0)}): choose another place, or mend its permissions"
    )


@contextmanager
def report_os_errors(path: Path) -> Iterator[None]:
    """A disk that is full, or a place that may not be written to, is an error that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _is_unusable(error):
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


def refuse_existing(path: Path, overwrite: bool, folder: bool = False) -> None:
    """Refuse an output that exists unless it may be overwritten, and one that is not of the kind to be written.

    A folder is only overwritten where it holds a checkpoint or nothing: never someone's other files.

    Raises:
        OutputExists: it exists, and may not be overwritten.
        InvalidRequest: its place cannot come to be.
    """
    if folder:
        remove_unfinished(path)
        require_output_folder(path, overwrite, foreign_to_checkpoint, "a checkpoint")
    else:
        require_output_file(path, overwrite)


def refuse_input_path(path: Path, models: Iterable[str]) -> None:
    """Refuse to write over a model that is read: even where overwriting is asked for, that one is not meant.

    Raises:
        InvalidRequest: it is one of them.
    """
    for model in models:
        if path.exists() and os.path.exists(model) and path.samefile(model):
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
def atomic_folder(
    path: Path, overwrite: bool = False, foreign: Callable[[Path], str | None] = foreign_to_checkpoint
) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Args:
        path: the folder to write.
        overwrite: it may be replaced.
        foreign: names what in it may not be replaced; None where there is nothing.

    Raises:
        OutputExists: `path` exists and `overwrite` is false.
        DiskFull: the disk filled up; nothing is left behind.
        InvalidRequest: the place cannot be written.
    """
    remove_unfinished(path)
    require_output_folder(path, overwrite, foreign, "a checkpoint")
    with report_os_errors(path), ExitStack() as held:
        with _begun(path):
            aside = held.enter_context(unfinished_folder(path))
        yield aside
        aside.chmod(0o777 & ~_umask())
        for file in aside.rglob("*"):
            if file.is_file():  # safetensors makes them the writer's alone
                file.chmod(0o666 & ~_umask())
        replace_folder(aside, path)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes when it does not."""
    with report_os_errors(path), ExitStack() as held:
        with _begun(path):
            aside = held.enter_context(unfinished_file(path))
        yield aside
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
