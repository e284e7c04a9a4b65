"""Checks of a data set's JSON files before pyarrow reads them, because some values crash the process.

pyarrow's JSON reader segfaults on a first row that is `null` and on lists nested about a thousand deep.
"""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import lzma
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from prunelab.errors import DataError
from prunelab.errors.text import one_line
from prunelab.io.limits import Limits
from prunelab.io.structured import parse_json

_NAMES = (".jsonl", ".ndjson", ".json")
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_UNREADABLE = (OSError, EOFError, lzma.LZMAError)
_LIMITS = Limits(size=1 << 30, values=20_000_000)
_REMEDY = "give one JSON object per line, or one list of objects"


def check_json_files(folder: Path, patterns: Iterable[str]) -> None:
    """Refuse JSON files in a data set's folder that would crash pyarrow.

    Args:
        folder: the data set's folder.
        patterns: of the files to read, relative to the folder.

    Raises:
        DataError: with file and line.
    """
    selected = list(patterns)
    for path in sorted(folder.rglob("*")):
        if not any(fnmatch.fnmatch(str(path.relative_to(folder)), pattern) for pattern in selected):
            continue
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading a FIFO or a device may never end
            raise DataError(f"{one_line(path)} is not a regular file: {_REMEDY}")
        if _is_json(path):
            status = path.stat()
            _check_file(path, status.st_size, status.st_mtime_ns)


def _is_json(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix.lower() in _OPENERS else path
    return name.suffix.lower() in _NAMES and path.is_file()


@lru_cache(maxsize=4096)
def _check_file(path: Path, size: int, modified: int) -> None:
    """Check one file; `size` and `modified` are cache keys, so that a changed file is checked again."""
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            _check_lines(path, file)
    except _UNREADABLE:
        return  # the library that loads the data set reports the reason


def _check_lines(path: Path, file: IO[bytes]) -> None:
    open_brackets, first = 0, True
    for number, raw in enumerate(file, start=1):
        line = raw.removeprefix(b"\xef\xbb\xbf").lstrip() if first else raw.lstrip()
        if not line:
            continue
        if first and line.startswith(b"["):
            _check_list(path, line + file.read(), number)
            return
        first = False
        if line.startswith(b"null"):
            raise DataError(f"{one_line(path)}, line {number}, is null, not an object: {_REMEDY}")
        brackets = line.count(b"[") + line.count(b"{")
        if line.startswith(b"{"):
            open_brackets = 0
            if brackets > _LIMITS.depth:
                _parsed(path, line, number)
        open_brackets += brackets - line.count(b"]") - line.count(b"}")
        if open_brackets > _LIMITS.depth and not line.startswith(b"{"):
            raise DataError(f"{one_line(path)}, line {number}: nested deeper than {_LIMITS.depth}: {_REMEDY}")


def _check_list(path: Path, text: bytes, line: int) -> None:
    for index, value in enumerate(_parsed(path, text, line), start=1):
        if not isinstance(value, dict):
            raise DataError(f"{one_line(path)}: item {index} of the list is not an object: {_REMEDY}")


def _parsed(path: Path, text: bytes, line: int) -> Any:
    return parse_json(text, source=str(path), line=line, nonfinite=True, limits=_LIMITS, remedy=_REMEDY)
