"""Write safetensors files tensor by tensor, with a minimum of memory.

Most tensors of a pruned checkpoint are whole tensors or whole rows of the dense checkpoint. The operating system copies
their bytes from file to file, outside this process's memory.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prunelab.io.fingerprint import tensor_bytes
from prunelab.io.lazy import torch
from prunelab.models.number_format import words
from prunelab.models.tensor_files import DTYPES, INDEX, SINGLE, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""Number formats of a safetensors file by torch's names for them."""
SHARD_BYTES = 5 * 10**9
# Errors of systems that cannot copy bytes between the two files.
_NO_MOVING = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_READ_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Moved:
    """A stored tensor, or some of its rows, copied in its number format.

    Attributes:
        tensor: the stored tensor.
        rows: the rows to write, ascending, shape `(rows,)`; None for all.
    """

    tensor: StoredTensor
    rows: Tensor | None = None

    def runs(self) -> Iterator[tuple[int, int]]:
        """First byte in the file and number of bytes of each contiguous run."""
        if self.rows is None:
            yield self.tensor.offset, self.tensor.bytes
            return
        row = math.prod(self.tensor.shape[1:]) * self.tensor.dtype.itemsize
        ends = [*((self.rows.diff() != 1).nonzero().flatten() + 1).tolist(), len(self.rows)]
        rows, start = self.rows.tolist(), 0
        for end in ends if rows else ():
            yield self.tensor.offset + rows[start] * row, (end - start) * row
            start = end

    def write(self, file: FileIO) -> None:
        """Append the bytes.

        Raises:
            CheckpointError: the source file was truncated after it was opened.
        """
        with self.tensor.file.open("rb", buffering=0) as source:
            for start, size in self.runs():
                done = 0
                while done < size:
                    moved = _move(source, file, start + done, size - done)
                    if not moved:
                        raise self.tensor.has_shrunk()
                    done += moved


def _move(source: FileIO, target: FileIO, start: int, size: int) -> int:
    """Append bytes of one file to another, inside the kernel if possible; returns their number."""
    if hasattr(os, "copy_file_range"):
        try:
            moved = os.copy_file_range(source.fileno(), target.fileno(), size, start)
        except OSError as error:
            if error.errno not in _NO_MOVING:
                raise
            moved = 0
        if moved:
            return moved
    source.seek(start)
    return _write_all(target, memoryview(source.read(min(size, _READ_AT_ONCE))))


Content: TypeAlias = "Tensor | Moved | Iterator[Tensor]"
"""The content of a tensor to write: the tensor, bytes of another file, or parts of its rows in order."""


@dataclass(frozen=True)
class Announced:
    """Name, shape and number format of a tensor to write."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    folder: Path,
    announced: Sequence[Announced],
    tensors: Iterable[tuple[str, Content]],
    parameters: int,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint's tensors one by one, in files that transformers loads.

    Args:
        folder: the folder to write to.
        announced: every tensor, in the order of `tensors`.
        tensors: names and contents; each is released before the next one is requested.
        parameters: number of parameters of the model, for the index.
        shard_bytes: the largest size of a file in bytes, unless a single tensor is larger.
    """
    shards = _shards(announced, shard_bytes)
    names = [SINGLE] if len(shards) == 1 else [
        f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
    ]  # fmt: skip
    coming = iter(tensors)
    for file_name, shard in zip(names, shards, strict=True):
        with (folder / file_name).open("wb", buffering=0) as file:
            _write_all(file, memoryview(_header_bytes(shard)))
            for expected in shard:
                name, content = next(coming)
                end = file.tell() + expected.bytes
                _write(file, content, expected.dtype)
                assert (name, file.tell()) == (expected.name, end)
                del content
    if len(shards) > 1:
        index = {
            "metadata": {"total_parameters": parameters, "total_size": sum(tensor.bytes for tensor in announced)},
            "weight_map": {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write(file: FileIO, content: Content, dtype: torch.dtype) -> None:
    if isinstance(content, Moved):
        assert content.tensor.dtype == dtype
        content.write(file)
        return
    for part in [content] if isinstance(content, torch.Tensor) else content:
        assert part.dtype == dtype
        if part.numel():
            _write_all(file, tensor_bytes(part.reshape(-1)))


def _write_all(file: FileIO, content: memoryview) -> int:
    """Write all bytes to an unbuffered file, in as many calls as needed; returns their number."""
    size = len(content)
    while content:
        content = content[file.write(content) :]
    return size


def _shards(announced: Sequence[Announced], shard_bytes: int) -> list[list[Announced]]:
    shards: list[list[Announced]] = [[]]
    shard_size = 0
    for tensor in announced:
        if shards[-1] and shard_size + tensor.bytes > shard_bytes:
            shards.append([])
            shard_size = 0
        shards[-1].append(tensor)
        shard_size += tensor.bytes
    return shards


def _header_bytes(shard: Sequence[Announced]) -> bytes:
    """Length and header of a safetensors file with tensors in this order."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for tensor, (start, stop) in zip(shard, _offsets(shard), strict=True):
        layout = {"shape": list(tensor.shape), "data_offsets": [start, stop]}
        fields[tensor.name] = {"dtype": NAMES[words(tensor.dtype)], **layout}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _offsets(shard: Sequence[Announced]) -> Iterator[tuple[int, int]]:
    start = 0
    for tensor in shard:
        yield start, start + tensor.bytes
        start += tensor.bytes
