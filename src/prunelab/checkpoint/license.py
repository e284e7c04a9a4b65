"""The licence of a base model, and whether it has conditions for redistribution."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import CheckpointError, DataError
from prunelab.io.reading import read_bytes
from prunelab.io.structured import parse_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FREE = frozenset(
    {"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "cc0-1.0", "cc-by-4.0",
     "cc-by-sa-4.0", "unlicense", "isc", "afl-3.0", "artistic-2.0", "zlib"}
)  # fmt: skip
"""Licences that require only their text and attribution; every other licence is reported to the user."""

TEXTS = ("licen[cs]e*", "notice*", "use_policy*")
"""Patterns of files with licence texts; matched without regard to case."""


@dataclass(frozen=True)
class Licence:
    """A licence as a model card on the hub states it.

    Attributes:
        identifier: such as `apache-2.0`, `llama3` or `other`.
        name: name of a licence with the identifier `other`; empty if the card has none.
        link: link to the text; empty if the card has none.
    """

    identifier: str
    name: str = ""
    link: str = ""

    @property
    def is_restrictive(self) -> bool:
        """Whether it has conditions beyond its text and attribution."""
        return self.identifier not in FREE

    @property
    def title(self) -> str:
        """The name, or else the identifier, with the link."""
        return f"{self.name or self.identifier}{f' ({self.link})' if self.link else ''}"

    def fields(self) -> dict[str, str]:
        """The fields of a model card's front matter."""
        values = {"license": self.identifier, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in values.items() if value}


def licence_in(fields: Mapping[str, Any]) -> Licence | None:
    """The licence in a model card's front matter; None if it states none."""
    given = fields.get("license")
    if not given:
        return None
    identifier = ", ".join(map(str, given)) if isinstance(given, list) else str(given)
    return Licence(identifier, str(fields.get("license_name") or ""), str(fields.get("license_link") or ""))


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Split a model card into the fields of its front matter and the remaining text."""
    if not text.startswith("---\n") or "\n---\n" not in text:
        return {}, text
    head, _, rest = text.removeprefix("---\n").partition("\n---\n")
    try:
        fields = parse_yaml(head, source="the model card's front matter")
    except DataError:
        return {}, text
    return (fields, rest) if isinstance(fields, dict) else ({}, text)


def licence_beside(folder: Path | None) -> Licence | None:
    """The licence that a folder's model card states; None if it states none."""
    if folder is None:
        return None
    card = folder / "README.md"
    return (
        licence_in(front_matter(read_bytes(card, error=CheckpointError).decode("utf-8", "replace"))[0])
        if card.is_file()
        else None
    )


def folder_of(model: PreTrainedModel) -> Path | None:
    """The folder that a model was loaded from; None for a model from the hub or one created in memory."""
    name = str(model.name_or_path or "")
    return Path(name) if name and Path(name).is_dir() else None


def copy_texts(base: Path | None, folder: Path) -> list[str]:
    """Copy the base model's licence, notice and use-policy files to the folder of a derived model.

    Nothing is copied for a base model from the hub, which is loaded without these files.

    Returns:
        The names of the copied files.
    """
    texts = [] if base is None else [path for path in sorted(base.iterdir()) if _is_text(path)]
    for path in texts:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in texts]


def _is_text(path: Path) -> bool:
    return path.is_file() and any(fnmatch(path.name.lower(), pattern) for pattern in TEXTS)
