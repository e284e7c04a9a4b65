"""The JSON files of a checkpoint, read within limits before any library reads them without limits."""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import replace
from pathlib import Path

from prunelab.errors import CheckpointError
from prunelab.io.reading import read_bytes
from prunelab.io.structured import JSON, parse_json_object

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
REMEDY = "fix it, or fetch it again"


def check_documents(folder: Path) -> None:
    """Refuse a checkpoint with a malformed JSON file, or one that does not hold an object.

    Raises:
        CheckpointError: names the file and the line.
    """
    for name in DOCUMENTS:
        path = folder / name
        if path.exists() or path.is_symlink():
            limits = VOCABULARY if name in ("tokenizer.json", "vocab.json") else JSON
            content = read_bytes(path, error=CheckpointError, limit=limits.size, remedy=REMEDY)
            if content.startswith(BOM_UTF8):  # written by editors of Windows; transformers fails at it
                raise CheckpointError(
                    f"{path} begins with a byte order mark, which JSON does not have: save it as UTF-8 without one"
                )
            parse_json_object(content, source=str(path), error=CheckpointError, limits=limits, remedy=REMEDY)
