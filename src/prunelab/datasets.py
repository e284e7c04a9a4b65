"""Where texts come from: the hub, a folder laid out like it, or a file of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetNotFoundError

from prunelab.errors import DataError

DOCUMENT_MARK = "<|endoftext|>"


@dataclass(frozen=True)
class Source:
    """One data set on the hub.

    Attributes:
        repository: such as `Salesforce/wikitext`.
        config: the configuration in it, or None.
        file: the one file that serves, for repositories too large to take whole.
    """

    repository: str
    config: str | None = None
    file: str | None = None

    def place(self, root: Path | None) -> str:
        """The folder `root/<repository>` where there is one, else the hub's id."""
        if root is not None and (root / self.repository).is_dir():
            return str(root / self.repository)
        return self.repository

    def _arguments(self) -> dict[str, Any]:
        return {"data_files": {"train": self.file}} if self.file else {"name": self.config}

    def splits(self, root: Path | None = None) -> list[str]:
        """The splits there are.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached.
        """
        if self.file:
            return ["train"]
        try:
            return list(datasets.get_dataset_split_names(self.place(root), self.config))
        except (OSError, ValueError, DatasetNotFoundError) as error:
            raise self._missing(root, error) from error

    def load(self, split: str, root: Path | None = None) -> datasets.Dataset:
        """One split, from `root` if it is there, else from the hub.

        Raises:
            DataError: the data set is neither in `root` nor on a hub that can be reached, or lacks the split.
        """
        try:
            return datasets.load_dataset(self.place(root), split=split, **self._arguments())
        except (OSError, ValueError, DatasetNotFoundError) as error:
            raise self._missing(root, error, split) from error

    def _missing(self, root: Path | None, error: Exception, split: str = "") -> DataError:
        what = f"{self.repository} ({self.config or 'default'}{', split ' + split if split else ''})"
        tried = f"not usable from {root} and not from the hub" if root else "not on the hub, or the hub is out of reach"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DataError(
            f"data set {what} is {tried} ({reason}): give --datasets-root DIR with a folder DIR/{self.repository}"
        )


def read_documents(path: Path) -> list[str]:
    """The documents of a user's file.

    A `.jsonl` file holds one object with a `text` a line; any other file is text, with `<|endoftext|>` between
    documents where there are several.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a line of it is not such an object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: give a text or JSONL file, or the name of a corpus") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give a text or JSONL file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it first") from None
    if path.suffix == ".jsonl":
        documents = list(_json_documents(path, text))
    else:
        documents = [part.strip("\n") for part in text.split(DOCUMENT_MARK)]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError(f"{path} holds no text: give a file with at least one document")
    return documents


def _json_documents(path: Path, text: str) -> Iterator[str]:
    # Not splitlines(): it also breaks at separators that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)["text"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise DataError(f'{path}, line {number}, is not {{"text": "..."}}: one such object a line') from None
