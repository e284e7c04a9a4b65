"""A run's folder: how it is told from others, and which paths in it are its own.

Whatever writes into such a folder first asks whether it is a run's, and whatever reads from it takes no path that leads
out of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunelab.errors import InvalidRequest, OutputExists
from prunelab.io.fingerprint import content_hash
from prunelab.io.folder_lock import LOCK
from prunelab.io.paths import ensure_writable, inside, kind_of, local_path, shortened
from prunelab.io.unfinished import sweep, sweep_below
from prunelab.studies.store import StoredResult, read_stored

INDEX, STUDY, FAILURES = "index.json", "study.yaml", "failures.json"
FILES = (LOCK, STUDY, FAILURES, INDEX, "results.csv", "results.parquet", "comparisons.csv")
FOLDERS = ("cells", "plans", "statistics", "generations", "made", "report", "report/tables", "report/figures")
_HELD = re.compile(r"[0-9a-f]{12} process \d+ on \S+\n?(?:.*\n?)?")
"""A kill may leave the end of a longer line behind the first."""
_CELL_FILE = re.compile(r"cells/[^/]+/[^/]+\.json")
_TEMPORARY = re.compile(r"\.(?:study\.yaml|\.lock)-.*[a-z0-9_]{8}")


def require_run_folder(folder: Path) -> None:
    """Refuse a folder for a study's results that is neither empty nor a run's.

    Raises:
        OutputExists: it holds something else; naming what.
        InvalidRequest: it cannot come to be, or what a study writes would lead out of it.
    """
    local_path(folder)
    ensure_writable(folder / STUDY)
    kind = kind_of(folder)
    if kind is None:
        return
    shown = shortened(folder)
    if not folder.is_dir():
        raise OutputExists(f"{shown} is a {kind}, not a folder: choose another place")
    if not is_run(folder):
        stranger = sorted(path.name for path in folder.iterdir() if not _is_trace(path))[0]
        raise OutputExists(
            f"{shown} is not empty and is not the folder of a study (it holds {stranger}): nothing in it is changed; "
            "give another --out"
        )
    require_own_paths(folder)


def is_run(folder: Path) -> bool:
    """Whether a folder is empty, or a study has begun in it, or two runs were merged into it."""
    if all(_is_trace(path) for path in folder.iterdir()):
        return True
    if kind_of(folder / STUDY) != "file":
        return False
    return _is_lock(folder / LOCK) or _is_index(folder) or _is_emptied(folder) or _is_unfinished(folder)


def _is_unfinished(folder: Path) -> bool:
    """Whether it is a copy of a killed run without its hidden files: it holds measurements and nothing else."""
    if not all(path.name in (*FILES, *FOLDERS) or path.name.startswith(".") for path in folder.iterdir()):
        return False
    return any(isinstance(read_stored(path), StoredResult) for path in sorted(folder.glob("cells/*/*.json")))


def _is_emptied(folder: Path) -> bool:
    """Whether an earlier version was killed in a run while it wrote its lock file, which was left empty."""
    known = {*FILES, *FOLDERS}
    emptied = kind_of(folder / LOCK) == "file" and (folder / LOCK).stat().st_size == 0
    return emptied and all(path.name in known or path.name.startswith(".") for path in folder.iterdir())


def _is_trace(path: Path) -> bool:
    """Whether a file is what a study leaves that was killed when it had just begun."""
    if kind_of(path) != "file":
        return False
    return _TEMPORARY.fullmatch(path.name) is not None or (
        path.name == LOCK and (path.stat().st_size == 0 or _is_lock(path))
    )


def _is_lock(path: Path) -> bool:
    """Whether a study has held the folder by this file."""
    if kind_of(path) != "file":
        return False
    return _HELD.fullmatch(path.read_bytes()[:1000].decode(errors="replace")) is not None


def _is_index(folder: Path) -> bool:
    """Whether the folder holds the index of a finished run; earlier versions' are told by the files that they name."""
    if not all(kind_of(folder / name) == "file" for name in (INDEX, FAILURES)):
        return False
    try:
        fields = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    names = fields.get("files") if isinstance(fields, dict) else None
    return isinstance(names, list) and all(isinstance(name, str) and _CELL_FILE.fullmatch(name) for name in names)


def require_own_paths(folder: Path) -> None:
    """Refuse a run in which what a study writes is a link or not of its kind."""
    for names, wanted in ((FILES, "file"), (FOLDERS, "folder")):
        for name in names:
            kind = kind_of(folder / name) if (folder / name).parent.is_dir() else None
            if kind not in (None, wanted):
                raise OutputExists(
                    f"{folder / name} is a {kind}, and a study writes a {wanted} there: move it away, or give another "
                    "--out"
                )


def sweep_run(folder: Path) -> None:
    """Remove temporary files that killed studies left in a run's folder, which the caller holds."""
    for name in FILES:
        sweep(folder / name, earlier=True)
    for name in FOLDERS:
        if kind_of(folder / name) == "folder":
            sweep_below(folder / name)


def index_text(files: Sequence[str]) -> str:
    """The text of a run's index: its measurement files in the order of the grid, and their hash."""
    return json.dumps({"files": list(files), "hash": content_hash({"files": list(files)})}, indent=1) + "\n"


def files_of(folder: Path, fields: Any) -> list[Path] | None:
    """The measurement files that an index names; None where the index is not as it was written.

    Args:
        folder: the run's.
        fields: what the index holds.

    Raises:
        InvalidRequest: it names a path that is no measurement file inside the run.
    """
    names = fields.get("files") if isinstance(fields, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    for name in names:
        if not _CELL_FILE.fullmatch(os.path.normpath(name)):
            raise InvalidRequest(
                f"{folder / INDEX} names {shortened(name)}, which is no measurement file of this run: nothing was read "
                "or changed; run the study again, which makes the index anew"
            )
        try:
            inside(folder, name)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"{folder / INDEX}: {error}: nothing was read or changed; run the study again, which makes the index "
                "anew"
            ) from None
    if len(set(names)) < len(names) or ("hash" in fields and fields["hash"] != content_hash({"files": names})):
        return None
    return [folder / name for name in names]
