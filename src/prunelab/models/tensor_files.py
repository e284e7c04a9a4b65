"""safetensors files read one tensor at a time, and checked before anything of them is believed.

Tensors are read into memory of their own rather than mapped: a mapped file counts as the process's memory for as far as
it was ever looked at, and a budget could not be kept.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunelab.errors import CheckpointError
from prunelab.io.fingerprint import tensor_bytes

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


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
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            self._fill(tensor, file)
        return tensor

    def parts(self, rows: int) -> Iterator[Tensor]:
        """So many rows after the other, all in the same memory: one is good until the next is asked for.

        Raises:
            CheckpointError: the file has become shorter since it was opened.
        """
        count, *others = self.shape
        room = torch.empty((min(rows, count), *others), dtype=self.dtype)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            for start in range(0, count, rows):
                part = room[: min(rows, count - start)]
                self._fill(part, file)
                yield part

    def _fill(self, tensor: Tensor, file: FileIO) -> None:
        if not tensor.numel():
            return
        room = tensor_bytes(tensor.reshape(-1))
        while room:
            count = file.readinto(room)
            if not count:
                raise self.has_shrunk()
            room = room[count:]

    def has_shrunk(self) -> CheckpointError:
        """The file ends before the tensor does."""
        return CheckpointError(f"{self.file} has become shorter while it was read: fetch it again")


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
            outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged ({error}): fetch it again") from None
        if outside:
            raise CheckpointError(f"{folder / INDEX} names {outside[0]}, which is not in its folder: fetch it again")
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
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("its first eight bytes are no header's length")
            fields: dict[str, Any] = json.loads(file.read(length))
        fields.pop("__metadata__", None)
        found = {name: _stored(path, 8 + length, name, one) for name, one in fields.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): fetch it again") from None
    whole = max((tensor.offset + tensor.bytes for tensor in found.values()), default=8 + length)
    if size != whole:
        raise CheckpointError(
            f"{path} has {size:,} bytes and should have {whole:,}: it was not fetched whole; fetch it again"
        )
    return found


def _stored(path: Path, start: int, name: str, field: Mapping[str, Any]) -> StoredTensor:
    """A tensor as the header describes it.

    Raises:
        CheckpointError: its numbers are of a format that is not read here.
        ValueError: what is said of it is impossible.
    """
    if field["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{path} holds {name} as {field['dtype']}, and its rows cannot be cut: give a checkpoint in bfloat16, "
            "float16 or float32"
        )
    shape, (first, last) = tuple(field["shape"]), field["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError(f"{name} has an impossible shape or place")
    stored = StoredTensor(path, DTYPES[field["dtype"]], shape, start + first)
    if stored.bytes != last - first:
        raise ValueError(f"{name} has {last - first} bytes, and its shape {stored.bytes}")
    return stored
