"""Run folders: how they are recognized, and which paths in them belong to the run.

Code that writes into a run folder first checks that it is one, and code that reads from it refuses paths that lead out
of it.
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
"""After a kill, the rest of a longer line may follow the first line."""
_CELL_FILE = re.compile(r"cells/[^/]+/[^/]+\.json")
_TEMPORARY = re.compile(r"\.(?:study\.yaml|\.lock)-.*[a-z0-9_]{8}")


def require_run_folder(folder: Path) -> None:
    """Refuse an output folder that is neither empty nor a run folder.

    Raises:
        OutputExists: it contains other files; with one of them.
        InvalidRequest: it cannot be created, or the study would write outside of it.
    """
    local_path(folder)
    ensure_writable(folder / STUDY)
    kind = kind_of(folder)
    if kind is None:
        return
    shown = shortened(folder)
    if not folder.is_dir():
        raise OutputExists(f"{shown} is a {kind}, not a folder: choose another path")
    if not is_run(folder):
        foreign = sorted(path.name for path in folder.iterdir() if not _is_trace(path))[0]
        raise OutputExists(
            f"{shown} is not empty and is not the folder of a study (it contains {foreign}); nothing was changed: "
            "give another --out"
        )
    require_own_paths(folder)


def is_run(folder: Path) -> bool:
    """Whether a folder is empty, or belongs to a study or a merged run."""
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
    """Whether the lock file is empty, because an earlier version was killed while writing it."""
    known = {*FILES, *FOLDERS}
    emptied = kind_of(folder / LOCK) == "file" and (folder / LOCK).stat().st_size == 0
    return emptied and all(path.name in known or path.name.startswith(".") for path in folder.iterdir())


def _is_trace(path: Path) -> bool:
    """Whether a file was left by a study that was killed at its start."""
    if kind_of(path) != "file":
        return False
    return _TEMPORARY.fullmatch(path.name) is not None or (
        path.name == LOCK and (path.stat().st_size == 0 or _is_lock(path))
    )


def _is_lock(path: Path) -> bool:
    """Whether a file is the lock file of a study."""
    if kind_of(path) != "file":
        return False
    return _HELD.fullmatch(path.read_bytes()[:1000].decode(errors="replace")) is not None


def _is_index(folder: Path) -> bool:
    """Whether the folder has the index of a finished run; old indexes are recognized by the files they list."""
    if not all(kind_of(folder / name) == "file" for name in (INDEX, FAILURES)):
        return False
    try:
        fields = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    names = fields.get("files") if isinstance(fields, dict) else None
    return isinstance(names, list) and all(isinstance(name, str) and _CELL_FILE.fullmatch(name) for name in names)


def require_own_paths(folder: Path) -> None:
    """Refuse a run in which an output of the study is a link or of the wrong kind."""
    for names, wanted in ((FILES, "file"), (FOLDERS, "folder")):
        for name in names:
            kind = kind_of(folder / name) if (folder / name).parent.is_dir() else None
            if kind not in (None, wanted):
                raise OutputExists(
                    f"{folder / name} is a {kind}, but the study writes a {wanted} there: move it away, or give "
                    "another --out"
                )


def sweep_run(folder: Path) -> None:
    """Remove temporary files of killed studies from a run's folder, which the caller has locked."""
    for name in FILES:
        sweep(folder / name, earlier=True)
    for name in FOLDERS:
        if kind_of(folder / name) == "folder":
            sweep_below(folder / name)


def index_text(files: Sequence[str]) -> str:
    """The index of a run as JSON: its measurement files in the order of the grid, and their hash."""
    return json.dumps({"files": list(files), "hash": content_hash({"files": list(files)})}, indent=1) + "\n"


def files_of(folder: Path, fields: Any) -> list[Path] | None:
    """The measurement files listed in an index; None if the index is damaged.

    Args:
        folder: the run's folder.
        fields: content of the index.

    Raises:
        InvalidRequest: it lists a path that is not a measurement file of the run.
    """
    names = fields.get("files") if isinstance(fields, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    for name in names:
        if not _CELL_FILE.fullmatch(os.path.normpath(name)):
            raise InvalidRequest(
                f"{folder / INDEX} lists {shortened(name)}, which is not a measurement file of this run; nothing was "
                "read or changed: run the study again to rebuild the index"
            )
        try:
            inside(folder, name)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"{folder / INDEX}: {error}; nothing was read or changed: run the study again to rebuild the index"
            ) from None
    if len(set(names)) < len(names) or ("hash" in fields and fields["hash"] != content_hash({"files": names})):
        return None
    return [folder / name for name in names]
