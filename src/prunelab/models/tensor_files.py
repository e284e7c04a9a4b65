"""safetensors files read one tensor at a time, and checked before anything of them is believed.

Tensors are read into memory of their own rather than mapped: a mapped file counts as the process's memory for as far as
it was ever looked at, and a budget could not be kept.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import CheckpointError
from prunelab.io.fingerprint import tensor_bytes
from prunelab.io.lazy import torch
from prunelab.models.names import is_harmless
from prunelab.models.weight_files import INDEX, SINGLE, find_weight_files

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Number formats of a safetensors file, and torch's names for them."""
LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library itself."""

__all__ = ["DTYPES", "INDEX", "SINGLE", "StoredTensor", "TensorFiles"]


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
            CheckpointError: there are none, several sets of them, or an adapter; a shard is missing, or not as long as
                its header says; index and shards disagree.
        """
        chosen = find_weight_files(folder)
        if chosen.index is None:
            return cls(folder, _header(folder / SINGLE))
        headers = {name: _header(folder / name) for name in chosen.shards}
        lost = [name for name, file in chosen.index.items() if name not in headers[file]]
        if lost:
            holder = folder / chosen.index[lost[0]]
            raise CheckpointError(f"{holder} does not hold {lost[0]}, as its index says: fetch both")
        for file, header in headers.items():
            for name in header:
                _check_indexed(folder, chosen.index, name, file)
        return cls(folder, {name: headers[file][name] for name, file in chosen.index.items()})

    @cached_property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def _check_indexed(folder: Path, index: Mapping[str, str], name: str, file: str) -> None:
    """Refuse a tensor of a shard that the index does not name, or names in another shard."""
    if index.get(name) == file or (name not in index and is_harmless(name)):
        return
    if name in index:
        raise CheckpointError(
            f"{folder} holds {name} twice, in {index[name]} and in {file}: save the model anew into an empty folder"
        )
    raise CheckpointError(
        f"{folder / file} holds {name}, which {INDEX} does not name: fetch both again, or save the model anew"
    )


def _header(path: Path) -> dict[str, StoredTensor]:
    """What a safetensors file says that it holds, once its length bears it out."""
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("its first eight bytes are no header's length")
            if length > LARGEST_HEADER:
                raise ValueError(f"its header has {length:,} bytes, and safetensors allows {LARGEST_HEADER:,}")
            text = file.read(length).decode("utf-8")
        if not text.startswith("{"):
            raise ValueError("its header is no JSON object")
        fields: dict[str, Any] = json.loads(text, object_pairs_hook=_each_once)
        _check_metadata(fields.pop("__metadata__", None))
        found = {name: _stored(path, 8 + length, name, field) for name, field in fields.items()}
        whole = _end_of_data(8 + length, found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): fetch it again") from None
    if size != whole:
        raise CheckpointError(
            f"{path} has {size:,} bytes and should have {whole:,}: it was not fetched whole; fetch it again"
        )
    return found


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, once none of its keys is repeated."""
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"{key!r:.200} is there twice")
        fields[key] = value
    return fields


def _check_metadata(metadata: Any) -> None:
    if metadata is not None and not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not all text")


def _end_of_data(start: int, tensors: Mapping[str, StoredTensor]) -> int:
    """The byte behind the last tensor, once each begins where the one before it ends, as safetensors demands."""
    end = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].bytes)):
        if tensor.offset < end:
            raise ValueError(f"{name:.200} overlaps the tensor before it by {end - tensor.offset:,} bytes")
        if tensor.offset > end:
            raise ValueError(f"{tensor.offset - end:,} bytes before {name:.200} belong to no tensor")
        end += tensor.bytes
    return end


def _stored(path: Path, start: int, name: str, field: Mapping[str, Any]) -> StoredTensor:
    """A tensor as the header describes it.

    Raises:
        CheckpointError: its numbers are of a format that is not read here.
        ValueError: what is said of it is impossible.
    """
    if field["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{path} holds {name:.200} as {field['dtype']!s:.20}, and its rows cannot be cut: give a checkpoint in "
            "bfloat16, float16 or float32"
        )
    shape, (first, last) = tuple(field["shape"]), field["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError(f"{name} has an impossible shape or place")
    stored = StoredTensor(path, getattr(torch, DTYPES[field["dtype"]]), shape, start + first)
    if stored.bytes != last - first:
        raise ValueError(f"{name} has {last - first} bytes, and its shape {stored.bytes}")
    return stored
