"""Read safetensors files one tensor at a time, after validating their headers.

Tensors are read into newly allocated memory instead of a memory map: the touched pages of a mapped file count towards
the process's memory, and would exceed a memory budget.
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
    """The location of a tensor in a file.

    Attributes:
        file: the safetensors file.
        dtype: its number format.
        shape: its shape.
        offset: offset of its first byte in the file.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """Read the tensor into newly allocated memory.

        Raises:
            CheckpointError: the file was truncated after it was opened.
        """
        tensor = torch.empty(self.shape, dtype=self.dtype)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            self._fill(tensor, file)
        return tensor

    def parts(self, rows: int) -> Iterator[Tensor]:
        """Read the tensor in parts of `rows` rows into one buffer; each part is valid until the next is requested.

        Raises:
            CheckpointError: the file was truncated after it was opened.
        """
        count, *others = self.shape
        buffer = torch.empty((min(rows, count), *others), dtype=self.dtype)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            for start in range(0, count, rows):
                part = buffer[: min(rows, count - start)]
                self._fill(part, file)
                yield part

    def _fill(self, tensor: Tensor, file: FileIO) -> None:
        if not tensor.numel():
            return
        buffer = tensor_bytes(tensor.reshape(-1))
        while buffer:
            count = file.readinto(buffer)
            if not count:
                raise self.has_shrunk()
            buffer = buffer[count:]

    def has_shrunk(self) -> CheckpointError:
        """The error for a file that ends before the tensor does."""
        return CheckpointError(f"{self.file} was truncated while it was read: fetch it again")


@dataclass(frozen=True)
class TensorFiles:
    """All tensors of a checkpoint's folder.

    Attributes:
        folder: the folder.
        tensors: the tensors by name.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> TensorFiles:
        """Read and validate the headers of a folder's safetensors files.

        Raises:
            CheckpointError: the folder has no weights, several sets of weights, or an adapter; a shard is missing, or
                its size contradicts its header; index and shards disagree.
        """
        chosen = find_weight_files(folder)
        if chosen.index is None:
            return cls(folder, _header(folder / SINGLE))
        headers = {name: _header(folder / name) for name in chosen.shards}
        missing = [name for name, file in chosen.index.items() if name not in headers[file]]
        if missing:
            holder = folder / chosen.index[missing[0]]
            raise CheckpointError(f"{holder} lacks {missing[0]}, which {INDEX} assigns to it: fetch both files again")
        for file, header in headers.items():
            for name in header:
                _check_indexed(folder, chosen.index, name, file)
        return cls(folder, {name: headers[file][name] for name, file in chosen.index.items()})

    @cached_property
    def bytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def _check_indexed(folder: Path, index: Mapping[str, str], name: str, file: str) -> None:
    """Refuse a tensor of a shard that the index does not name, or names in another shard."""
    if index.get(name) == file or (name not in index and is_harmless(name)):
        return
    if name in index:
        raise CheckpointError(
            f"{folder} holds {name} twice, in {index[name]} and in {file}: save the model again into an empty folder"
        )
    raise CheckpointError(
        f"{folder / file} holds {name}, which {INDEX} does not name: fetch both files again, or save the model again"
    )


def _header(path: Path) -> dict[str, StoredTensor]:
    """The tensors in the header of a safetensors file, checked against the size of the file."""
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("its first eight bytes are not the length of a header")
            if length > LARGEST_HEADER:
                raise ValueError(f"its header has {length:,} bytes, and safetensors allows {LARGEST_HEADER:,}")
            text = file.read(length).decode("utf-8")
        if not text.startswith("{"):
            raise ValueError("its header is not a JSON object")
        fields: dict[str, Any] = json.loads(text, object_pairs_hook=_each_once)
        _check_metadata(fields.pop("__metadata__", None))
        tensors = {name: _stored(path, 8 + length, name, field) for name, field in fields.items()}
        expected_size = _end_of_data(8 + length, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): fetch it again") from None
    if size != expected_size:
        raise CheckpointError(
            f"{path} has {size:,} bytes instead of {expected_size:,}, so its download is incomplete: fetch it again"
        )
    return tensors


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, checked for repeated keys."""
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"the key {key!r:.200} is repeated")
        fields[key] = value
    return fields


def _check_metadata(metadata: Any) -> None:
    if metadata is not None and not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not all strings")


def _end_of_data(start: int, tensors: Mapping[str, StoredTensor]) -> int:
    """The end of the last tensor, after a check that the tensors are contiguous, as safetensors requires."""
    end = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].bytes)):
        if tensor.offset < end:
            raise ValueError(f"{name:.200} overlaps the tensor before it by {end - tensor.offset:,} bytes")
        if tensor.offset > end:
            raise ValueError(f"{tensor.offset - end:,} bytes before {name:.200} belong to no tensor")
        end += tensor.bytes
    return end


def _stored(path: Path, start: int, name: str, field: Mapping[str, Any]) -> StoredTensor:
    """The tensor that a header's entry describes.

    Raises:
        CheckpointError: its number format is not supported.
        ValueError: its shape or its offsets are invalid.
    """
    if field["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{path} holds {name:.200} as {field['dtype']!s:.20}, which cannot be pruned: give a checkpoint in "
            "bfloat16, float16 or float32"
        )
    shape, (first, last) = tuple(field["shape"]), field["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError(f"{name} has an invalid shape or invalid offsets")
    stored = StoredTensor(path, getattr(torch, DTYPES[field["dtype"]]), shape, start + first)
    if stored.bytes != last - first:
        raise ValueError(f"{name} has {last - first} bytes, and its shape implies {stored.bytes}")
    return stored
