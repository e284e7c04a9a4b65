"""The miniature benchmarks in the layout of the hub's datasets, so that the benchmarks' usual code reads them."""

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
    """The rows of every repository, by configuration and split."""
    return {repository: configs for task in TASKS for repository, configs in task.data_sets()}


def pocket_data() -> Path:
    """The folder of the miniature datasets, for `datasets_root`; created on first use.

    The folder's name holds a hash of the generating code, so a folder of another version is never reused, and an
    existing folder is found without generating the data, which takes seconds.
    """
    folder = cache_folder() / f"pocket-{version_of(Path(__file__).parent):016x}"
    if not folder.is_dir():
        with atomic_folder(folder, overwrite=True, foreign=lambda _: None) as aside:
            _write(aside)
    return folder


@cache
def version_of(package: Path) -> int:
    """A hash of the package's code and of the names that it imports, as the version of the contents."""
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
    """The folder from which benchmarks of these models read their data.

    Args:
        given: the user's folder; `pocket` stands for the miniature datasets, unless a folder has that name.
        models: names of the models; pocket models, also pruned ones, use the miniature datasets by default.

    Raises:
        InvalidRequest: pocket models are mixed with other models, and no folder is given.
    """
    if given is not None:
        return pocket_data() if given == Path("pocket") and not given.exists() else given
    pocket = [name for name in models if is_pocket(name)]
    if not pocket:
        return None
    if len(pocket) < len(models):
        raise InvalidRequest(
            f"{pocket[0]} was trained on synthetic data only: study it separately, or give --datasets-root for all"
        )
    return pocket_data()


def _files(configs: DataSet) -> dict[str, str]:
    """A repository's files: a README with the configurations, and a file of rows for each split."""
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
