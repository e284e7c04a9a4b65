"""Run a model that is larger than the device: its weights fill the accelerators, then the memory, then the disk.

transformers and accelerate place the modules and load a module's weights while it runs. An offloaded model can be
evaluated only; pruning reads a model of this size block by block (`prunelab.models.streaming.model`). Tested with a CPU
and weights on the disk; several GPUs, and one GPU with offloading to memory, are untested.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import torch
from prunelab.io.unfinished import temporary_folder
from prunelab.models.loading import (
    LanguageModel,
    inspected,
    load_inspected,
    load_processor,
    load_tokenizer,
    parse_device,
    parse_dtype,
    weights_of,
)
from prunelab.models.memory import format_bytes, free_memory
from prunelab.models.streaming.model import stream_inspected


@dataclass(frozen=True, repr=False)
class OffloadedModel(LanguageModel):
    """A model with parts of its weights offloaded to the disk.

    Attributes:
        number_format: the requested number format; None for the checkpoint's own.
    """

    number_format: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the loaded model, computed from the files."""
        assert self.inspection is not None
        return stream_inspected(self.inspection, device="cpu", dtype=self.number_format).fingerprint


def load_offloaded(
    name: str, *, device: str | None = None, dtype: str | None = None, memory: int | None = None
) -> LanguageModel:
    """Load a checkpoint, with offloading if it is larger than the device's free memory.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; by default the best available device, and then all devices of its kind.
        dtype: `float32`, `bfloat16` or `float16`; by default the checkpoint's own.
        memory: the most bytes of weights on the device; by default its free memory.

    Raises:
        CheckpointError: the checkpoint is missing, gated or damaged, or `inspected` refuses it.
        UnsupportedModel: no family covers the architecture.
        InvalidRequest: the embedding does not fit, or the device or the dtype is not available.
    """
    where = parse_device(device)
    budget = free_memory(where) if memory is None else memory
    number_format = parse_dtype(dtype)
    inspection = inspected(name)
    if inspection.weight_bytes(number_format if isinstance(number_format, torch.dtype) else None) <= budget:
        return load_inspected(inspection, device=device, dtype=dtype)
    path, config = inspection.path, inspection.config
    tokenizer = load_tokenizer(path, config)
    processor = load_processor(path, config) if inspection.family.is_multimodal else None
    with ExitStack() as resources:
        place = resources.enter_context(temporary_folder("offload"))
        model = weights_of(
            inspection, number_format, device_map="auto", max_memory=_rooms(where, budget, device),
            offload_folder=str(place),
        )  # fmt: skip
        weakref.finalize(model, resources.pop_all().close)
    if model.get_input_embeddings().weight.is_meta:
        raise InvalidRequest(
            f"a memory of {format_bytes(budget)} does not hold the embedding of {name}: give more --memory"
        )
    return OffloadedModel(
        inspection.name, model.eval(), tokenizer, processor, inspection=inspection, number_format=dtype
    )


def _rooms(where: torch.device, room: int, device: str | None) -> dict[Any, int]:
    """The most bytes of weights on each device, in accelerate's form."""
    if where.type == "cpu":
        return {"cpu": room}
    cpu_memory = {"cpu": free_memory(torch.device("cpu"))}
    if where.type != "cuda" or device not in (None, "auto", "cuda"):
        return {where.index or 0: room, **cpu_memory}
    return dict.fromkeys(range(torch.cuda.device_count()), room) | cpu_memory
