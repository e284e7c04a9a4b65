"""Recognize existing outputs of prunelab, which may be replaced on request."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

CHECKPOINT_FILES = (
    "config.json", "generation_config.json", "pruning_plan.json", "README.md", "modeling_prunelab.py",
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "*token*.json", "tokenizer.model",
    "*.spm", "spiece.model", "sentencepiece*.model", "vocab.json", "vocab.txt", "merges.txt", "chat_template.*",
    "*processor_config.json", "licen[cs]e*", "notice*", "use_policy*",
)  # fmt: skip
"""Files of a checkpoint folder: those of prunelab, those of transformers, and the base model's licence."""

CHECKPOINT_FOLDERS = ("additional_chat_templates",)
MOST_READ = 256 << 20


def foreign_to_checkpoint(folder: Path) -> str | None:
    """Describe content of a folder that does not belong to a checkpoint; None if there is none."""
    if not (folder / "config.json").is_file():
        return "it has no config.json"
    for path in sorted(folder.iterdir()):
        known = CHECKPOINT_FOLDERS if path.is_dir() else CHECKPOINT_FILES
        if path.is_symlink() or not any(fnmatch(path.name.lower(), pattern.lower()) for pattern in known):
            return f"such as {path.name}"
    return None


def is_gguf(path: Path) -> bool:
    """Whether a regular file is a GGUF file."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def is_measurements(path: Path) -> bool:
    """Whether a regular file holds measurements in the format of `prunelab evaluate --out`."""
    if path.stat().st_size > MOST_READ:
        return False
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    required = {"model", "benchmark", "metric", "value"}
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) and required <= set(row) for row in rows)


def is_statistics(path: Path) -> bool:
    """Whether a regular file begins like prunelab's calibration statistics, even if it is damaged later."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_READ:
            return False
        header = file.read(length)
    try:
        kind = json.loads(header)["__metadata__"]["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
    return isinstance(kind, str) and kind.startswith("prunelab/statistics/")
