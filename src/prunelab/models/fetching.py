"""The files of a checkpoint on the hub, on this disk: those that `find_weight_files` would choose, and no others."""

from __future__ import annotations

from pathlib import Path

from prunelab.models.weight_files import INDEX, SINGLE, read_index, refuse_adapter

_BESIDE_WEIGHTS = ("*.json", "*.model", "*.txt", "*.jinja")
"""What a checkpoint's folder needs besides its weights."""


def fetched(name: str) -> Path:
    """The folder of a checkpoint of the hub.

    Args:
        name: its id.

    Raises:
        CheckpointError: it is an adapter, or its index is damaged.
        OSError, ValueError, HfHubHTTPError: the hub did not give it.
    """
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(name, allow_patterns=list(_BESIDE_WEIGHTS)))
    refuse_adapter(folder)
    shards = sorted(set(read_index(folder).values())) if (folder / INDEX).exists() else []
    return Path(snapshot_download(name, allow_patterns=[*_BESIDE_WEIGHTS, SINGLE, *shards]))
