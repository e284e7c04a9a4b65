"""Where texts come from: the hub, a folder laid out like it, or a file of the user's own."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import metadata_load

from prunelab.errors import DataError, DiskFull, first_line
from prunelab.io.fingerprint import content_hash
from prunelab.io.hub import look_for_hub
from prunelab.io.paths import require_output_folder

DOCUMENT_MARK = "<|endoftext|>"
_EMPTY_PARQUET = "BatchSize must be greater than 0"
# The library lets a StopIteration out where a JSON file is empty, a RuntimeError where a repository wants to run code.
_UNUSABLE = (OSError, ValueError, RuntimeError, DatasetsError, StopIteration)


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
            look_for_hub()
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
        except _UNUSABLE as error:
            raise self._missing(root, error) from error

    def load(self, split: str, root: Path | None = None) -> datasets.Dataset:
        """One split, from `root` if it is there, else from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached, or lacks the split.
        """
        try:
            return datasets.load_dataset(self._found(root), split=split, **self._arguments(root))
        except _UNUSABLE as error:
            raise self._missing(root, error, split) from error

    def load_splits(self, root: Path | None = None) -> datasets.DatasetDict:
        """All splits there are, from `root` if they are there, else from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached.
        """
        try:
            return datasets.load_dataset(self._found(root), **self._arguments(root))
        except _UNUSABLE as error:
            raise self._missing(root, error) from error

    def files(self, folder: Path) -> list[str]:
        """Patterns of the files that hold it, by what the README in its folder says, else by the hub's customs."""
        if self.file:
            return [self.file]
        readme = folder / "README.md"
        configs = ((metadata_load(readme) if readme.is_file() else None) or {}).get("configs", [])
        files = next((c.get("data_files") for c in configs if c.get("config_name") == (self.config or "default")), None)
        if files is None:
            return [f"{self.config}/*"] if self.config else ["*"]
        parts = [files] if isinstance(files, str) else files
        paths = [part if isinstance(part, str) else part["path"] for part in parts]
        return [one for path in paths for one in ([path] if isinstance(path, str) else path)]

    def described(self, split: str = "") -> str:
        """What messages call it, or one split of it."""
        return f"{self.repository} ({self.config or 'default'}{', split ' + split if split else ''})"

    def _missing(self, root: Path | None, error: Exception, split: str = "") -> DataError:
        tried = f"not usable from {root} and not from the hub" if root else "not on the hub, or the hub is out of reach"
        return DataError(
            f"data set {self.described(split)} is {tried} ({_reason(error)}): run `prunelab fetch {self.wanted_by} "
            f"--to DIR` where there is internet, and give --datasets-root DIR with its folder DIR/{self.repository}"
        )


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


def read_documents(path: Path) -> list[str]:
    """The documents of a user's file.

    A `.jsonl` file holds one object with a `text` a line; any other file is text, with `<|endoftext|>` between
    documents where there are several.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a line of it is not such an object.
    """
    if path.suffix == ".jsonl":
        documents = list(_json_documents(path))
    else:
        documents = [part.strip("\n") for part in _text_of(path).split(DOCUMENT_MARK)]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError(f"{path} holds no text: give a file with at least one document")
    return documents


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a user's file that are not blank, with their numbers from 1.

    Raises:
        DataError: the file is missing, a folder, or not UTF-8.
    """
    # Not splitlines(): it also breaks at separators that JSON strings may hold.
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors put a mark in front
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: give a text or JSONL file, or the name of a corpus") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give a text or JSONL file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it first") from None


def _json_documents(path: Path) -> Iterator[str]:
    for number, line in read_lines(path):
        try:
            document = json.loads(line)["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            document = None
        if not isinstance(document, str):
            raise DataError(f'{path}, line {number}, is not {{"text": "..."}}: one such object a line')
        yield document
