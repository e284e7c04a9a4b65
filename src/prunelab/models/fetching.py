"""Download a checkpoint from the hub: only the files that `find_weight_files` would choose."""

from __future__ import annotations

from pathlib import Path

from prunelab.models.weight_files import INDEX, SINGLE, read_index, refuse_adapter

_BESIDE_WEIGHTS = ("*.json", "*.model", "*.txt", "*.jinja")
"""Patterns of the files that a checkpoint needs besides its weights."""


def fetched(name: str) -> Path:
    """Download a checkpoint from the hub and return its folder.

    Args:
        name: its id.

    Raises:
        CheckpointError: it is an adapter, or its index is damaged.
        OSError, ValueError, HfHubHTTPError: the hub does not provide it.
    """
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(name, allow_patterns=list(_BESIDE_WEIGHTS)))
    refuse_adapter(folder)
    shards = sorted(set(read_index(folder).values())) if (folder / INDEX).exists() else []
    return Path(snapshot_download(name, allow_patterns=[*_BESIDE_WEIGHTS, SINGLE, *shards]))
