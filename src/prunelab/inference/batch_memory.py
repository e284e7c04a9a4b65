"""How many tokens fit a batch: peak memory of a real forward, measured, against what the device has free."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SATURATION = defaultdict(lambda: 16384, cpu=512)
"""By type of device: tokens a batch beyond which it computes no faster, and more would only cost memory."""

SHARE = 0.5
"""The part of the free memory that a batch may fill: later batches have other shapes."""


@dataclass
class Peak:
    """The most bytes that a computation held beyond what was there before it."""

    bytes: int = 0


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """Measure what the computation inside adds to the device's memory; read the result after leaving."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
    else:
        with _LiveTensors() as tensors:
            yield peak
        peak.bytes = tensors.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of storages that operations make, while they live: the CPU keeps no such count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Inputs that no operation here has made are weights, or the caller's: they were there before.
        self._known.update(t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(storage)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, storage.nbytes())
        return out

    def _free(self, size: int) -> None:
        self.live -= size


def free_bytes(device: torch.device) -> int:
    """Bytes that a computation on the device can still take."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def tokens_that_fit(bytes_per_token: float, device: torch.device, most: int) -> int:
    """The largest power of two of tokens, up to `most`, that fits the device's free memory."""
    tokens = int(min(SHARE * free_bytes(device) / max(bytes_per_token, 1.0), most))
    return 1 << max(tokens, 1).bit_length() - 1
