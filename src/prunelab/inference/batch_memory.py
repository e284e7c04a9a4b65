"""Batch sizes in tokens, from the model's shapes and the device's memory; and measured peak memory."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelab.io.lazy import psutil, torch

SATURATION = defaultdict(lambda: 16384, cpu=512)
"""By type of device: tokens per batch beyond which throughput no longer grows, only memory use."""

SHARE = 0.5
"""The share of the device's memory, without the weights, that a batch may use."""

FREE_SHARE = 0.8
"""The share of the free memory that a batch may use."""


@dataclass
class Peak:
    """Peak number of bytes that a computation allocated."""

    bytes: int = 0


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """Measure the peak memory allocated inside the `with` block; read the result after the block."""
    from prunelab.inference.live_tensors import LiveTensors

    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
    else:
        with LiveTensors() as tensors:
            yield peak
        peak.bytes = tensors.peak


def free_bytes(device: torch.device) -> int:
    """Number of free bytes on the device."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def tokens_that_fit(bytes_per_token: float, device: torch.device, most: int) -> int:
    """The largest power of two of tokens, up to `most`, that fits the device's free memory."""
    return _power(SHARE * free_bytes(device) / max(bytes_per_token, 1.0), most)


def total_bytes(device: torch.device) -> int:
    """Total bytes of the device's memory; on the CPU at most the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def memory_class(total: int) -> int:
    """Total memory rounded down to three significant binary digits, so that devices of one kind give the same value."""
    step = 1 << max(total.bit_length() - 3, 0)
    return total // step * step


def forward_bytes(model: Any, length: int) -> float:
    """Upper estimate of the bytes that a forward allocates per token of its batch, logits of every token included.

    It follows from shapes and dtype alone: eight states of the hidden size and four of the widest matrix, the mask, the
    attention weights where attention is eager, and the logits.

    Args:
        model: a causal language model.
        length: largest number of tokens that a token attends to; rounded up to the next power of two.
    """
    vocabulary, hidden = model.get_input_embeddings().weight.shape
    heads = model.get_output_embeddings().weight
    outer = {id(model.get_input_embeddings().weight), id(heads)}
    widest = max([hidden, *(max(p.shape) for p in model.parameters() if p.ndim == 2 and id(p) not in outer)])
    item = model.dtype.itemsize
    keys = 1 << max(length - 1, 1).bit_length()
    config = model.config.get_text_config()
    attention = 2 * keys * item
    if config._attn_implementation == "eager":
        attention += config.num_attention_heads * keys * (4 + 2 * item)
    return float(item * (8 * hidden + 4 * widest + vocabulary) + 8 * hidden + attention)


def cache_bytes(model: Any) -> float:
    """Bytes of a token's keys and values in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


@dataclass(frozen=True)
class BatchSize:
    """Number of tokens per batch.

    Attributes:
        tokens: a power of two.
        shrunk_from: the number on this kind of device with enough free memory; None if that is `tokens`.
    """

    tokens: int
    shrunk_from: int | None = None


def batch_size(model: Any, device: torch.device, bytes_per_token: float, most: int) -> BatchSize:
    """Number of tokens per batch; equal for a model on all devices of one kind, independent of their free memory.

    It is the number that fits into half of the device's memory without the weights. If that much is not free, it is the
    number that fits, with a warning.

    Args:
        model: the model.
        device: the model's device.
        bytes_per_token: bytes of a forward per token.
        most: maximum number of tokens.
    """
    room = memory_class(total_bytes(device))
    room = max(room - sum(p.numel() * p.element_size() for p in model.parameters()), room // 8)
    usual = _power(SHARE * room / max(bytes_per_token, 1.0), most)
    fitting = _power(FREE_SHARE * free_bytes(device) / max(bytes_per_token, 1.0), most)
    if fitting >= usual:
        return BatchSize(usual)
    say_shrunk(usual, fitting)
    return BatchSize(fitting, usual)


def say_shrunk(usual: int, tokens: int) -> None:
    """Warn that batches are smaller than the usual ones."""
    warnings.warn(
        f"not enough free memory for batches of {usual:,} tokens: using {tokens:,}; with 16-bit dtypes, results differ "
        "by rounding from those of a run with enough memory",
        UserWarning,
        stacklevel=3,
    )


def _power(tokens: float, most: int) -> int:
    """The largest power of two that exceeds neither number; at least 1."""
    return 1 << max(int(min(tokens, most)), 1).bit_length() - 1


def batch_conditions(tokens: int | None, shrunk_from: int | None) -> dict[str, int | None]:
    """Tokens per batch for a result's conditions, and their number with enough free memory where it differs."""
    shrunk = {} if shrunk_from is None else {"tokens_a_batch_with_enough_memory": shrunk_from}
    return {"tokens_a_batch": tokens, **shrunk}
