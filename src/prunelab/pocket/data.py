"""The miniature benchmarks, written as the hub's data sets are laid out, which the benchmarks' own code reads."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from prunelab.calibration.corpus import C4
from prunelab.calibration.image_text import TEXTVQA
from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks.mmmu import DISCIPLINES, REPOSITORY
from prunelab.evaluation.benchmarks.pope import SOURCE as POPE
from prunelab.io.atomic_write import atomic_folder
from prunelab.models.bundled import is_pocket
from prunelab.pocket.c4 import crawl
from prunelab.pocket.held_out import digest
from prunelab.pocket.tasks import TASKS
from prunelab.pocket.vision.data import write_pictures
from prunelab.pruning.apply import cache_folder

if TYPE_CHECKING:
    from prunelab.pocket.tasks.base import DataSet


def data_sets() -> dict[str, DataSet]:
    """Every repository's rows, by configuration and split."""
    return {repository: configs for task in TASKS for repository, configs in task.data_sets()}


def pocket_data() -> Path:
    """The folder of the miniature data sets, for `datasets_root`; written where it is not there yet.

    Its name holds a hash of the code that draws the contents, so that another version's folder is never taken for this
    one's, and nobody has to draw them, which takes seconds, to find out that they are there.
    """
    folder = cache_folder() / f"pocket-{version_of(Path(__file__).parent):016x}"
    if not folder.is_dir():
        with atomic_folder(folder, overwrite=True, foreign=lambda _: None) as aside:
            _write(aside)
    return folder


@cache
def version_of(package: Path) -> int:
    """What tells one version of the contents from another: a package's code, and names that it has from others."""
    code = [(str(path.relative_to(package)), path.read_bytes()) for path in sorted(package.rglob("*.py"))]
    return digest(code, sys.version_info[:2], C4, POPE, TEXTVQA, REPOSITORY, DISCIPLINES)


def _write(root: Path) -> None:
    contents = {repository: _files(configs) for repository, configs in data_sets().items()}
    contents[C4.repository] = crawl()
    for repository, files in contents.items():
        for name, text in files.items():
            path = root / repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = text.encode()
            path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    write_pictures(root)


def data_root(given: Path | None, models: Sequence[str]) -> Path | None:
    """Where benchmarks of these models read their data.

    Args:
        given: the user's folder; `pocket` is the miniature data sets', where no folder is called so.
        models: pocket models, also pruned ones, are asked about their own world unless a folder is given.

    Raises:
        InvalidRequest: pocket models beside others, and no folder.
    """
    if given is not None:
        return pocket_data() if given == Path("pocket") and not given.exists() else given
    pocket = [name for name in models if is_pocket(name)]
    if not pocket:
        return None
    if len(pocket) < len(models):
        raise InvalidRequest(
            f"{pocket[0]} knows nothing but its own little world: study it apart, or give --datasets-root for all"
        )
    return pocket_data()


def _files(configs: DataSet) -> dict[str, str]:
    """A repository's files: a README that says what they are, and one of rows for every split."""
    files = {}
    listed = []
    for config, splits in configs.items():
        parts = []
        for split, rows in splits.items():
            name = f"{config}/{split}.jsonl"
            files[name] = "".join(json.dumps(row) + "\n" for row in rows)
            parts.append({"split": split, "path": name})
        listed.append({"config_name": config, "data_files": parts})
    files["README.md"] = f"---\n{yaml.safe_dump({'configs': listed})}---\n"
    return files
