"""Where texts come from: the hub, a folder laid out like it, or a file of the user's own."""

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
# The library lets a StopIteration out where a JSON file is empty, a RuntimeError where a repository wants to run code,
# and several others where a README's header is not what it expects.
_UNUSABLE = (
    OSError, ValueError, RuntimeError, StopIteration, TypeError, LookupError, AttributeError, yaml.YAMLError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One data set on the hub.

    Attributes:
        repository: such as `Salesforce/wikitext`.
        config: the configuration in it, or None.
        file: the one file that serves, for repositories too large to take whole.
        wanted_by: the option of `prunelab fetch` that brings it.
    """

    repository: str
    config: str | None = None
    file: str | None = None
    wanted_by: str = field(default="--suite paper", compare=False)

    def place(self, root: Path | None) -> str:
        """The folder `root/<repository>` where there is one, else the hub's id."""
        if root is not None and (root / self.repository).is_dir():
            return str(root / self.repository)
        return self.repository

    def _found(self, root: Path | None) -> str:
        """The same, to be read now."""
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
        """Where the library keeps its copy of a local folder.

        By itself it tells folders apart by their name and README alone: of files that have changed since, or of another
        folder of that name, it would silently give the contents that it saw first.
        """
        folder = Path(self.place(root))
        if not folder.is_dir():
            return {}
        files = [(path, path.stat()) for path in sorted(folder.resolve().rglob("*")) if path.is_file()]
        key = content_hash({str(path): [found.st_size, found.st_mtime_ns] for path, found in files})
        return {"cache_dir": str(Path(datasets.config.HF_DATASETS_CACHE) / f"prunelab-{key}")}

    def splits(self, root: Path | None = None) -> list[str]:
        """The splits there are.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached.
        """
        if self.file:
            return ["train"]
        try:
            return list(datasets.get_dataset_split_names(self._found(root), self.config, **self._own_cache(root)))
        except (*_UNUSABLE, datasets.exceptions.DatasetsError) as error:
            raise self._missing(root, error) from error

    def load(self, split: str, root: Path | None = None) -> datasets.Dataset:
        """One split, from `root` if it is there, else from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached, or lacks the split.
        """
        try:
            return datasets.load_dataset(self._found(root), split=split, **self._arguments(root))
        except (*_UNUSABLE, datasets.exceptions.DatasetsError) as error:
            raise self._missing(root, error, split) from error

    def load_splits(self, root: Path | None = None) -> datasets.DatasetDict:
        """All splits there are, from `root` if they are there, else from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached.
        """
        try:
            return datasets.load_dataset(self._found(root), **self._arguments(root))
        except (*_UNUSABLE, datasets.exceptions.DatasetsError) as error:
            raise self._missing(root, error) from error

    def files(self, folder: Path) -> list[str]:
        """Patterns of the files that hold it, by what the README in its folder says, else by the hub's customs."""
        if self.file:
            return [self.file]
        files = _listed_files(folder / "README.md", self.config or "default")
        return files or ([f"{self.config}/*"] if self.config else ["*"])

    def described(self, split: str = "") -> str:
        """What messages call it, or one split of it."""
        return f"{self.repository} ({self.config or 'default'}{', split ' + split if split else ''})"

    def _missing(self, root: Path | None, error: Exception, split: str = "") -> DataError:
        tried = f"not usable from {root} and not from the hub" if root else "not on the hub, or the hub is out of reach"
        return DataError(
            f"data set {self.described(split)} is {tried} ({_reason(error)}): run `prunelab fetch {self.wanted_by} "
            f"--to DIR` where there is internet, and give --datasets-root DIR with its folder DIR/{self.repository}"
        )


def _listed_files(readme: Path, config: str) -> list[str]:
    """Patterns of a configuration's files in a README's header; none where it has none, or is damaged."""
    from huggingface_hub import metadata_load

    try:
        header = metadata_load(readme) if readme.is_file() else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    configs = header.get("configs") if isinstance(header, dict) else None
    chosen = [one for one in _as_list(configs) if isinstance(one, dict) and one.get("config_name") == config]
    parts = _as_list(chosen[0].get("data_files") if chosen else None)
    paths = [part.get("path") if isinstance(part, dict) else part for part in parts]
    return [path for some in paths for path in _as_list(some) if isinstance(path, str)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration) or _EMPTY_PARQUET in str(error):
        return "a file of it is empty"
    return first_line(error)


def require_documents(source: Source, split: str, documents: datasets.Dataset, columns: Sequence[str]) -> None:
    """Refuse a split without documents, or whose documents lack a column.

    Raises:
        DataError: naming the split and the column.
    """
    remedy = f"fetch it again with `prunelab fetch {source.wanted_by} --to DIR`"
    for column in columns:
        if column not in documents.column_names:
            there = ", ".join(documents.column_names)
            raise DataError(f"{source.described(split)} has no column {column!r}, only {there}: {remedy}")
    if not len(documents):
        raise DataError(f"{source.described(split)} is empty: {remedy}")


def documents_hash(documents: datasets.Dataset) -> str:
    """Hash of a split's documents, whatever files they came from; 16 hexadecimal digits."""
    return content_hash({"documents": documents.to_list()})


def fetch_sources(sources: Iterable[Source], to: Path) -> Iterator[Path]:
    """Copy data sets from the hub to `to/<repository>`, the files of the wanted configurations only.

    Every one is read back from there, so that what is missing is known where there is internet.

    Yields:
        The folder of each repository, when it is there and readable.

    Raises:
        DataError: the hub does not give it, or not whole.
        DiskFull: no room.
        OutputExists: a repository's folder holds something else.
    """
    by_repository: dict[str, list[Source]] = {}
    for source in sources:
        by_repository.setdefault(source.repository, []).append(source)
    for repository in by_repository:
        require_output_folder(to / repository, True, _not_fetched, f"what was fetched of {repository}")
    for repository, wanted in by_repository.items():
        folder = to / repository
        _download(repository, folder, ["README.md"])
        _download(repository, folder, [pattern for source in wanted for pattern in source.files(folder)])
        for source in wanted:
            source.load_splits(to)
        yield folder


def _not_fetched(folder: Path) -> str | None:
    """Says so where a folder was not filled from the hub: its client leaves a mark, and a README comes first."""
    fetched = (folder / ".cache" / "huggingface").is_dir() or (folder / "README.md").is_file()
    return None if fetched else "it was not fetched from the hub"


def _download(repository: str, folder: Path, patterns: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repository, repo_type="dataset", local_dir=folder, allow_patterns=list(patterns))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left while fetching {repository} to {folder}: choose another --to") from error
        raise DataError(
            f"{repository} cannot be fetched from the hub ({_reason(error)}): check the connection, and "
            "`hf auth login` if the repository wants it"
        ) from error
