"""Atomic writes: write to a temporary path, then rename."""

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
    # safetensors writes from Rust and reports a full disk in the text of its own error.
    return isinstance(error, SafetensorError) and "No space left" in str(error)


def _is_unusable(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in UNUSABLE


def _unwritable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be written ({os.strerror(error.errno or 0)}): choose another path, or change its permissions"
    )


@contextmanager
def report_os_errors(path: Path) -> Iterator[None]:
    """Turn errors about a full disk or an unwritable path into errors that name the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _is_unusable(error):
            raise _unwritable(path, error) from error
        if not _is_full(error):
            raise
        raise DiskFull(f"no space left while writing {path}: free some space, or choose another path") from error


def require_space(path: Path, needed: int) -> None:
    """Refuse to start writing `needed` bytes if the disk has less free space.

    Raises:
        DiskFull: with both sizes.
    """
    existing = next(parent for parent in [path.absolute(), *path.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskFull(
            f"{path} needs {needed / 1e9:.3g} GB and its disk has {free / 1e9:.3g} GB left: free some space, or "
            "choose another path"
        )


def refuse_existing(path: Path, overwrite: bool, folder: bool = False) -> None:
    """Refuse an existing output, unless it may be overwritten and is of the same kind.

    A folder is overwritten only if it is empty or holds a checkpoint, so that other files are never lost.

    Raises:
        OutputExists: it exists and may not be overwritten.
        InvalidRequest: the path cannot be created.
    """
    if folder:
        remove_unfinished(path)
        require_output_folder(path, overwrite, foreign_to_checkpoint, "a checkpoint")
    else:
        require_output_file(path, overwrite)


def refuse_input_path(path: Path, models: Iterable[str]) -> None:
    """Refuse to overwrite a model that the command reads, even with `--overwrite`.

    Raises:
        InvalidRequest: the output path is one of the models.
    """
    for model in models:
        if path.exists() and os.path.exists(model) and path.samefile(model):
            raise InvalidRequest(f"{path} is the input model: choose another output path")


@contextmanager
def _begun(path: Path) -> Iterator[None]:
    """Create the parent folder; `/proc` and others report a missing file where nothing can be created."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except FileNotFoundError as error:
        raise _unwritable(path, error) from error


@contextmanager
def atomic_folder(
    path: Path, overwrite: bool = False, foreign: Callable[[Path], str | None] = foreign_to_checkpoint
) -> Iterator[Path]:
    """A temporary folder that is renamed to `path` if the block succeeds, and removed if it fails.

    Args:
        path: the folder to write.
        overwrite: whether it may be replaced.
        foreign: describes content of the folder that may not be replaced; None if there is none.

    Raises:
        OutputExists: `path` exists and `overwrite` is false.
        DiskFull: no space left; the temporary folder is removed.
        InvalidRequest: the path cannot be written.
    """
    remove_unfinished(path)
    require_output_folder(path, overwrite, foreign, "a checkpoint")
    with report_os_errors(path), ExitStack() as stack:
        with _begun(path):
            temporary = stack.enter_context(unfinished_folder(path))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for file in temporary.rglob("*"):
            if file.is_file():  # safetensors creates files that only their owner can read
                file.chmod(0o666 & ~_umask())
        replace_folder(temporary, path)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` if the block succeeds, and removed if it fails."""
    with report_os_errors(path), ExitStack() as stack:
        with _begun(path):
            temporary = stack.enter_context(unfinished_file(path))
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
