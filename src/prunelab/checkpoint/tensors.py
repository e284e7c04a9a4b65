"""safetensors files read and written one tensor at a time, and checked before anything of them is believed.

Tensors are read into memory of their own rather than mapped: a mapped file counts as the process's memory for as far as
it was ever looked at, and a budget could not be kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunelab.errors import CheckpointError
from prunelab.fingerprint import tensor_bytes

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        file: the safetensors file.
        dtype: its number format.
        shape: its shape.
        offset: of its first byte in the file.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            CheckpointError: the file has become shorter since it was opened.
        """
        tensor = torch.empty(self.shape, dtype=self.dtype)
        if not self.bytes:
            return tensor
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            room, done = tensor_bytes(tensor.reshape(-1)), 0
            while done < self.bytes:
                count = file.readinto(room[done:])
                if not count:
                    raise CheckpointError(f"{self.file} has become shorter while it was read: fetch it again")
                done += count
        return tensor


@dataclass(frozen=True)
class TensorFiles:
    """All tensors of a checkpoint's folder.

    Attributes:
        folder: the folder.
        tensors: by name.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> TensorFiles:
        """Look at a folder's safetensors files, their headers only.

        Raises:
            CheckpointError: there are none, a shard is missing, or one is not as long as its header says.
        """
        if not (folder / INDEX).exists():
            if not (folder / SINGLE).exists():
                raise CheckpointError(
                    f"{folder} has neither {SINGLE} nor {INDEX}: give a folder with safetensors weights"
                )
            return cls(folder, _header(folder / SINGLE))
        try:
            of_file: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(of_file.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged ({error}): fetch it again") from None
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {', '.join(missing)}, of {len(names)} shards: fetch the missing ones"
            )
        headers = {name: _header(folder / name) for name in names}
        lost = [name for name, file in of_file.items() if name not in headers[file]]
        if lost:
            raise CheckpointError(f"{folder / of_file[lost[0]]} does not hold {lost[0]}, as its index says: fetch both")
        return cls(folder, {name: headers[file][name] for name, file in of_file.items()})

    @cached_property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def _header(path: Path) -> dict[str, StoredTensor]:
    """What a safetensors file says that it holds, once its length bears it out."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("its first eight bytes are no header's length")
            fields: dict[str, Any] = json.loads(file.read(length))
        fields.pop("__metadata__", None)
        found = {
            name: StoredTensor(path, DTYPES[one["dtype"]], tuple(one["shape"]), 8 + length + one["data_offsets"][0])
            for name, one in fields.items()
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): fetch it again") from None
    whole = max((tensor.offset + tensor.bytes for tensor in found.values()), default=8 + length)
    if size != whole:
        raise CheckpointError(
            f"{path} has {size:,} bytes and should have {whole:,}: it was not fetched whole; fetch it again"
        )
    return found


@dataclass(frozen=True)
class Announced:
    """A tensor that is to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    folder: Path,
    announced: Sequence[Announced],
    tensors: Iterable[tuple[str, Tensor]],
    parameters: int,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint's tensors as they come, in files that stock loading finds.

    Args:
        folder: where to.
        announced: every tensor, in the order in which it comes.
        tensors: their names and values; one is let go of before the next is asked for.
        parameters: of the model, for the index.
        shard_bytes: a file grows no longer than this, unless a single tensor is.
    """
    shards = _shards(announced, shard_bytes)
    names = [SINGLE] if len(shards) == 1 else [
        f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
    ]  # fmt: skip
    coming = iter(tensors)
    for file_name, shard in zip(names, shards, strict=True):
        with (folder / file_name).open("wb") as file:
            file.write(_header_bytes(shard))
            for expected in shard:
                name, tensor = next(coming)
                assert (name, tuple(tensor.shape), tensor.dtype) == (expected.name, expected.shape, expected.dtype)
                if tensor.numel():
                    file.write(tensor_bytes(tensor.reshape(-1)))
                del tensor
    if len(shards) > 1:
        index = {
            "metadata": {"total_parameters": parameters, "total_size": sum(one.bytes for one in announced)},
            "weight_map": {one.name: name for name, shard in zip(names, shards, strict=True) for one in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(announced: Sequence[Announced], shard_bytes: int) -> list[list[Announced]]:
    shards: list[list[Announced]] = [[]]
    held = 0
    for one in announced:
        if shards[-1] and held + one.bytes > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(one)
        held += one.bytes
    return shards


def _header_bytes(shard: Sequence[Announced]) -> bytes:
    """Length and header of a safetensors file whose tensors lie in the order given."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for one, (start, stop) in zip(shard, _offsets(shard), strict=True):
        fields[one.name] = {"dtype": NAMES[one.dtype], "shape": list(one.shape), "data_offsets": [start, stop]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _offsets(shard: Sequence[Announced]) -> Iterator[tuple[int, int]]:
    start = 0
    for one in shard:
        yield start, start + one.bytes
        start += one.bytes
