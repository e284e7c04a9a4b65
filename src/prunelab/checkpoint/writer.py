"""safetensors files written as their tensors come, with as little of them in memory as can be.

What a pruned checkpoint keeps of the one it was cut from is mostly whole tensors and whole rows. Their bytes are moved
from file to file by the operating system, and never come into this process's memory.
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
# What a system answers that cannot move bytes between these two files.
_NO_MOVING = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_READ_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Moved:
    """A stored tensor that is written in the number format that it has, or some of its rows.

    Attributes:
        tensor: where it lies.
        rows: the rows to write, ascending, shape `(rows,)`; None for all.
    """

    tensor: StoredTensor
    rows: Tensor | None = None

    def runs(self) -> Iterator[tuple[int, int]]:
        """First byte in the file and number of bytes of everything that lies in one piece."""
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
            CheckpointError: the source has become shorter since it was opened.
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
    """Append bytes of one file to another, in the system's own memory where it can; how many there were."""
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
"""What is written of a tensor: itself, bytes of another file, or its rows, some after the other."""


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
    tensors: Iterable[tuple[str, Content]],
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
            "metadata": {"total_parameters": parameters, "total_size": sum(one.bytes for one in announced)},
            "weight_map": {one.name: name for name, shard in zip(names, shards, strict=True) for one in shard},
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
    """Write without a buffer, in as many calls as the system makes of it."""
    size = len(content)
    while content:
        content = content[file.write(content) :]
    return size


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
        fields[one.name] = {"dtype": NAMES[words(one.dtype)], "shape": list(one.shape), "data_offsets": [start, stop]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _offsets(shard: Sequence[Announced]) -> Iterator[tuple[int, int]]:
    start = 0
    for one in shard:
        yield start, start + one.bytes
        start += one.bytes
