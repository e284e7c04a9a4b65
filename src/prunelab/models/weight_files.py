"""Choose the weight files of a folder, by one rule for every loader.

The weights are `model.safetensors`, or the shards that `model.safetensors.index.json` names. Pickled weights, other
variants (`model.fp16.safetensors`) and other layouts (`consolidated.safetensors`) are never read. Ambiguous folders are
refused: a single file together with an index, shards that the index does not name, or an adapter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunelab.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_SHARD = re.compile(r"(shard-\d+-)?model-\d+-of-\d+\.safetensors")  # "shard-": distributed checkpoints
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_OTHER = (*_PICKLED, ".safetensors", ".gguf", ".h5", ".msgpack", ".safetensors.index.json", ".bin.index.json")
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "optimizer.bin", "scheduler.bin")


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a model's weights.

    Attributes:
        shards: names of the safetensors files in the folder.
        index: the shard of every tensor; None for a single file.
        ignored: names of other files with weights, which no loader opens.
    """

    shards: tuple[str, ...]
    index: Mapping[str, str] | None
    ignored: tuple[str, ...]


def find_weight_files(folder: Path) -> WeightFiles:
    """Choose a folder's weight files.

    Raises:
        CheckpointError: the folder has no weights, several sets of weights, or an adapter; the index is damaged or a
            shard is missing.
    """
    refuse_adapter(folder)
    names = _names(folder)
    single, index = (folder / SINGLE).is_file(), None
    if (folder / INDEX).exists():
        index = read_index(folder)
    shards = (SINGLE,) if index is None else tuple(sorted(set(index.values())))
    if index is None and not single:
        raise CheckpointError(f"{folder} {_what_instead(names)}")
    if index is not None and single and shards != (SINGLE,):
        raise CheckpointError(
            f"{folder} holds {SINGLE} and, in {INDEX}, {len(shards)} shards, which may be two models: move one of them "
            "elsewhere"
        )
    missing = [name for name in shards if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)} of {len(shards)} shards: fetch the missing shards")
    stray = [name for name in names if _SHARD.fullmatch(name) and name not in shards]
    if stray:
        others = SINGLE if index is None else f"the shards that {INDEX} names"
        raise CheckpointError(
            f"{folder} holds {stray[0]} beside {others}, which may be two models: move the shard elsewhere, or fetch "
            "the index that names it"
        )
    if distributed := [name for name in names if name.endswith(".distcp")]:
        raise CheckpointError(f"{folder} holds a distributed checkpoint ({distributed[0]}) as well: move it elsewhere")
    used = {*shards, INDEX}
    return WeightFiles(shards, index, tuple(name for name in names if name not in used and _holds_weights(name)))


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder with an adapter, with or without a model, whether or not peft is installed.

    Raises:
        CheckpointError: the folder holds an adapter; names its file.
    """
    adapter_files = [name for name in ADAPTER_FILES if (folder / name).exists()]
    if adapter_files:
        context = "beside a model" if (folder / "config.json").exists() else "and no model"
        raise CheckpointError(
            f"{folder} holds an adapter ({adapter_files[0]}) {context}: merge the adapter first (peft's "
            "merge_and_unload) and save the merged model, or move the adapter's files elsewhere"
        )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror}): give a checkpoint's folder") from None


def read_index(folder: Path) -> dict[str, str]:
    """Read the shard of every tensor from a folder's index.

    Raises:
        CheckpointError: the index is damaged, or names files outside the folder.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        of_file: dict[str, str] = index["weight_map"]
        names = sorted(set(of_file.values()))
        outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
        _ = [(folder / name).exists() for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / INDEX} is damaged ({error}): fetch it again") from None
    if outside:
        raise CheckpointError(f"{folder / INDEX} names {outside[0]}, which is outside its folder: fetch it again")
    if names != [SINGLE] and not isinstance(index.get("metadata"), dict):
        raise CheckpointError(
            f"{folder / INDEX} has no object called metadata, without which transformers reads no shards: add "
            '"metadata": {}, or fetch it again'
        )
    return of_file


def _holds_weights(name: str) -> bool:
    return name.endswith(_OTHER) and name not in _NO_WEIGHTS


def _what_instead(names: list[str]) -> str:
    """Describe what a folder without readable weights holds instead, and the remedy."""
    shards = [name for name in names if _SHARD.fullmatch(name)]
    others = [name for name in names if name.endswith(".safetensors")]
    pickled = [name for name in names if name.endswith(_PICKLED) and _holds_weights(name)]
    distributed = [name for name in names if name.endswith(".distcp")]
    if shards:
        return f"holds {shards[0]} but no {INDEX}: fetch the index"
    if others:
        return (
            f"holds {others[0]} but neither {SINGLE} nor {INDEX}: rename the file to {SINGLE} if its tensors have "
            "transformers' names, or convert it to transformers' layout first"
        )
    if pickled:
        return f"holds pickled weights ({pickled[0]}), which prunelab never opens: convert them to safetensors first"
    if distributed:
        return "holds a distributed checkpoint (.distcp): save the model with save_pretrained first"
    return f"has neither {SINGLE} nor {INDEX}: give a folder with safetensors weights"
