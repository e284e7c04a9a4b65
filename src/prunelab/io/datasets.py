"""Data sets and texts: from the Hugging Face Hub, from a local copy of it, or from a user's file."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from prunelab.errors import DataError, DiskFull, first_line
from prunelab.io.data_files import check_json_files
from prunelab.io.documents import DOCUMENT_MARK, read_documents, read_lines
from prunelab.io.fingerprint import content_hash
from prunelab.io.hub import require_hub
from prunelab.io.lazy import datasets
from prunelab.io.paths import require_output_folder

__all__ = [
    "DOCUMENT_MARK",
    "Source",
    "documents_hash",
    "fetch_sources",
    "read_documents",
    "read_lines",
    "require_documents",
]
_EMPTY_PARQUET = "BatchSize must be greater than 0"
# `datasets` raises a StopIteration for an empty JSON file, a RuntimeError for a repository that wants to run code, and
# several others for an unexpected README header.
_UNUSABLE = (
    OSError, ValueError, RuntimeError, StopIteration, TypeError, LookupError, AttributeError, yaml.YAMLError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set on the hub.

    Attributes:
        repository: such as `Salesforce/wikitext`.
        config: the configuration of the repository, or None.
        file: the only file to use, for repositories that are too large to download completely.
        wanted_by: the option of `prunelab fetch` that downloads it.
    """

    repository: str
    config: str | None = None
    file: str | None = None
    wanted_by: str = field(default="--suite paper", compare=False)

    def place(self, root: Path | None) -> str:
        """The folder `root/<repository>` if it exists, otherwise the hub id."""
        if root is not None and (root / self.repository).is_dir():
            return str(root / self.repository)
        return self.repository

    def _found(self, root: Path | None) -> str:
        """As `place`, after checking that it can be read."""
        place = self.place(root)
        if place == self.repository:
            require_hub()
        else:
            check_json_files(Path(place), self.files(Path(place)))
        return place

    def _arguments(self, root: Path | None) -> dict[str, Any]:
        chosen = {"data_files": {"train": self.file}} if self.file else {"name": self.config}
        return {**chosen, **self._own_cache(root)}

    def _own_cache(self, root: Path | None) -> dict[str, str]:
        """Cache folder that `datasets` uses for a local folder.

        By default `datasets` identifies a folder by its name and README only. After a change of its files, or for
        another folder of the same name, it would silently return the old contents.
        """
        folder = Path(self.place(root))
        if not folder.is_dir():
            return {}
        files = [(path, path.stat()) for path in sorted(folder.resolve().rglob("*")) if path.is_file()]
        key = content_hash({str(path): [status.st_size, status.st_mtime_ns] for path, status in files})
        return {"cache_dir": str(Path(datasets.config.HF_DATASETS_CACHE) / f"prunelab-{key}")}

    def splits(self, root: Path | None = None) -> list[str]:
        """Names of the available splits.

        Raises:
            DataError: the data set is neither in `root` nor on a reachable hub.
        """
        if self.file:
            return ["train"]
        try:
            return list(datasets.get_dataset_split_names(self._found(root), self.config, **self._own_cache(root)))
        except (*_UNUSABLE, datasets.exceptions.DatasetsError) as error:
            raise self._missing(root, error) from error

    def load(self, split: str, root: Path | None = None) -> datasets.Dataset:
        """Load one split, from `root` if it is there, otherwise from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a reachable hub, or lacks the split.
        """
        try:
            return datasets.load_dataset(self._found(root), split=split, **self._arguments(root))
        except (*_UNUSABLE, datasets.exceptions.DatasetsError) as error:
            raise self._missing(root, error, split) from error

    def load_splits(self, root: Path | None = None) -> datasets.DatasetDict:
        """Load all splits, from `root` if they are there, otherwise from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a reachable hub.
        """
        try:
            return datasets.load_dataset(self._found(root), **self._arguments(root))
        except (*_UNUSABLE, datasets.exceptions.DatasetsError) as error:
            raise self._missing(root, error) from error

    def files(self, folder: Path) -> list[str]:
        """Patterns of the data files, from the README in its folder, otherwise from the hub's conventions."""
        if self.file:
            return [self.file]
        files = _listed_files(folder / "README.md", self.config or "default")
        return files or ([f"{self.config}/*"] if self.config else ["*"])

    def described(self, split: str = "") -> str:
        """Name for messages, of the data set or of one split."""
        return f"{self.repository} ({self.config or 'default'}{', split ' + split if split else ''})"

    def _missing(self, root: Path | None, error: Exception, split: str = "") -> DataError:
        tried = (
            f"neither readable from {root} nor available from the hub"
            if root
            else "not on the hub, or the hub is unreachable"
        )
        return DataError(
            f"data set {self.described(split)} is {tried} ({_reason(error)}): run `prunelab fetch {self.wanted_by} "
            f"--to DIR` on a machine with internet access, and give --datasets-root DIR (which holds "
            f"{self.repository})"
        )


def _listed_files(readme: Path, config: str) -> list[str]:
    """Patterns of a configuration's files in a README's header; empty if it has none or is damaged."""
    from huggingface_hub import metadata_load

    try:
        header = metadata_load(readme) if readme.is_file() else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    configs = header.get("configs") if isinstance(header, dict) else None
    chosen = [entry for entry in _as_list(configs) if isinstance(entry, dict) and entry.get("config_name") == config]
    parts = _as_list(chosen[0].get("data_files") if chosen else None)
    paths = [part.get("path") if isinstance(part, dict) else part for part in parts]
    return [path for part_paths in paths for path in _as_list(part_paths) if isinstance(path, str)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _reason(error: BaseException) -> str:
    """The root cause of an error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration) or _EMPTY_PARQUET in str(error):
        return "one of its files is empty"
    return first_line(error)


def require_documents(source: Source, split: str, documents: datasets.Dataset, columns: Sequence[str]) -> None:
    """Refuse a split without documents, or without one of the columns.

    Raises:
        DataError: with the split and the column.
    """
    remedy = f"fetch it again with `prunelab fetch {source.wanted_by} --to DIR`"
    for column in columns:
        if column not in documents.column_names:
            present = ", ".join(documents.column_names)
            raise DataError(f"{source.described(split)} has no column {column!r}, only {present}: {remedy}")
    if not len(documents):
        raise DataError(f"{source.described(split)} is empty: {remedy}")


def documents_hash(documents: datasets.Dataset) -> str:
    """Hash of a split's documents, independent of their files; 16 hexadecimal digits."""
    return content_hash({"documents": documents.to_list()})


def fetch_sources(sources: Iterable[Source], to: Path) -> Iterator[Path]:
    """Download data sets from the hub to `to/<repository>`, only the files of the given configurations.

    Each one is loaded afterwards, so that a missing file is noticed while there is internet access.

    Yields:
        The folder of each repository, once it is complete and readable.

    Raises:
        DataError: the hub does not provide it, or only a part of it.
        DiskFull: no space left.
        OutputExists: a repository's folder holds something else.
    """
    by_repository: dict[str, list[Source]] = {}
    for source in sources:
        by_repository.setdefault(source.repository, []).append(source)
    for repository in by_repository:
        require_output_folder(to / repository, True, _not_fetched, f"a download of {repository}")
    for repository, requested in by_repository.items():
        folder = to / repository
        _download(repository, folder, ["README.md"])
        _download(repository, folder, [pattern for source in requested for pattern in source.files(folder)])
        for source in requested:
            source.load_splits(to)
        yield folder


def _not_fetched(folder: Path) -> str | None:
    """Why a folder is not a download from the hub, which has a `.cache` or at least a README; None if it is."""
    fetched = (folder / ".cache" / "huggingface").is_dir() or (folder / "README.md").is_file()
    return None if fetched else "it was not downloaded from the hub"


def _download(repository: str, folder: Path, patterns: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repository, repo_type="dataset", local_dir=folder, allow_patterns=list(patterns))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left while downloading {repository} to {folder}: choose another --to") from error
        raise DataError(
            f"{repository} cannot be downloaded from the hub ({_reason(error)}): check the connection, and run "
            "`hf auth login` if the repository requires it"
        ) from error
