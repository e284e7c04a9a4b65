"""How many tokens go through a model at once, by its shapes and the device's kind; and peak memory, measured."""

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
"""By type of device: tokens a batch beyond which it computes no faster, and more would only cost memory."""

SHARE = 0.5
"""The part of the device's memory, beside the weights, that a batch may fill."""

FREE_SHARE = 0.8
"""The part of what is free that a batch may fill."""


@dataclass
class Peak:
    """The most bytes that a computation held beyond what was there before it."""

    bytes: int = 0


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """Measure what the computation inside adds to the device's memory; read the result after leaving."""
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
    """Bytes that a computation on the device can still take."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def tokens_that_fit(bytes_per_token: float, device: torch.device, most: int) -> int:
    """The largest power of two of tokens, up to `most`, that fits the device's free memory."""
    return _power(SHARE * free_bytes(device) / max(bytes_per_token, 1.0), most)


def total_bytes(device: torch.device) -> int:
    """Bytes that the device has in all; of a CPU what a container's limit leaves of them."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def memory_class(total: int) -> int:
    """A device's memory rounded down to three binary digits, so that devices of one kind have the same."""
    step = 1 << max(total.bit_length() - 3, 0)
    return total // step * step


def forward_bytes(model: Any, length: int) -> float:
    """About what a forward holds for each token of its batch, logits of every token included, at most.

    It follows from shapes and number format alone: eight states of the hidden size and four of the widest matrix, the
    mask, attention's weights where they are computed eagerly, and the logits.

    Args:
        model: a causal language model.
        length: tokens that a token attends to at most; counted as the next power of two.
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
    """Keys and values of a token in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


@dataclass(frozen=True)
class BatchSize:
    """How many tokens go through a model at once.

    Attributes:
        tokens: a power of two.
        shrunk_from: what it is on this kind of device when enough memory is free; None where that is `tokens`.
    """

    tokens: int
    shrunk_from: int | None = None


def batch_size(model: Any, device: torch.device, bytes_per_token: float, most: int) -> BatchSize:
    """How many tokens go through a model at once: the same for a model on a kind of device, whatever is free there.

    It is what half of the device's memory holds beside the weights. Where that is not free, it is what fits, and a
    warning says so.

    Args:
        model: the model.
        device: where it runs.
        bytes_per_token: of a forward.
        most: tokens at most.
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
    """Warn that batches are smaller than usual."""
    warnings.warn(
        f"too little memory is free for {usual:,} tokens a batch: {tokens:,} are taken; in 16-bit number formats "
        "figures differ by rounding from those of a run with enough memory",
        UserWarning,
        stacklevel=3,
    )


def _power(tokens: float, most: int) -> int:
    """The largest power of two up to both, at least 1."""
    return 1 << max(int(min(tokens, most)), 1).bit_length() - 1


def batch_conditions(tokens: int | None, shrunk_from: int | None) -> dict[str, int | None]:
    """The tokens a batch for a result's conditions, and what they would be where enough memory is free."""
    shrunk = {} if shrunk_from is None else {"tokens_a_batch_with_enough_memory": shrunk_from}
    return {"tokens_a_batch": tokens, **shrunk}
