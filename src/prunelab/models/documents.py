"""The JSON files of a checkpoint, read within limits before any library reads them without limits."""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import replace
from pathlib import Path

from prunelab.errors import CheckpointError
from prunelab.io.structured import JSON, read_json_object

DOCUMENTS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "tokenizer.json",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors.index.json",
)
"""The JSON files that transformers reads if they exist; each holds an object."""
VOCABULARY = replace(JSON, values=20_000_000)
"""Limits for vocabularies: a tokenizer's merges can be millions of pairs."""


def check_documents(folder: Path) -> None:
    """Refuse a checkpoint with a malformed JSON file, or one that does not hold an object.

    Raises:
        CheckpointError: names the file and the line.
    """
    for name in DOCUMENTS:
        path = folder / name
        if path.exists() or path.is_symlink():
            _refuse_mark(path)
            limits = VOCABULARY if name in ("tokenizer.json", "vocab.json") else JSON
            read_json_object(path, error=CheckpointError, limits=limits, remedy="fix it, or fetch it again")


def _refuse_mark(path: Path) -> None:
    """Refuse the byte order mark of Windows' editors, at which transformers fails."""
    if not path.is_file():
        return  # the reader refuses pipes and devices, at which opening would wait
    try:
        with path.open("rb") as file:
            marked = file.read(len(BOM_UTF8)) == BOM_UTF8
    except OSError:
        return  # the reader says what is wrong
    if marked:
        raise CheckpointError(
            f"{path} begins with a byte order mark, which JSON does not have: save it as UTF-8 without one"
        )
