"""A model run from wherever there is room: the accelerators first, then memory, then its own files on the disk.

transformers and accelerate place the modules and bring a module's weights in for as long as it runs. Only running is
possible so: what cuts a model of this size reads it block by block (`prunelab.models.streaming.model`). Tried with a
CPU and weights left on the disk; several GPUs, and one GPU with memory behind it, are untested.
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
    """A model of which parts have no place but the disk.

    Attributes:
        number_format: as it was asked for.
    """

    number_format: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """The same as the loaded model's, read from the files."""
        assert self.inspection is not None
        return stream_inspected(self.inspection, device="cpu", dtype=self.number_format).fingerprint


def load_offloaded(
    name: str, *, device: str | None = None, dtype: str | None = None, memory: int | None = None
) -> LanguageModel:
    """A checkpoint loaded, or spread where it is larger than the device's free memory.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; the best there is if not given, and then all of its kind.
        dtype: `float32`, `bfloat16` or `float16`; the checkpoint's own if not given.
        memory: bytes that its weights may take on the device; what is free if not given.

    Raises:
        InvalidRequest: not even the embedding fits.
    """
    where = parse_device(device)
    room = free_memory(where) if memory is None else memory
    number_format = parse_dtype(dtype)
    inspection = inspected(name)
    if inspection.weight_bytes(number_format if isinstance(number_format, torch.dtype) else None) <= room:
        return load_inspected(inspection, device=device, dtype=dtype)
    path, config = inspection.path, inspection.config
    tokenizer = load_tokenizer(path, config)
    processor = load_processor(path, config) if inspection.family.is_multimodal else None
    with ExitStack() as held:
        place = held.enter_context(temporary_folder("offload"))
        model = weights_of(
            inspection, number_format, device_map="auto", max_memory=_rooms(where, room, device),
            offload_folder=str(place),
        )  # fmt: skip
        weakref.finalize(model, held.pop_all().close)
    if model.get_input_embeddings().weight.is_meta:
        raise InvalidRequest(
            f"a memory of {format_bytes(room)} does not hold the embedding of {name}: give more --memory"
        )
    return OffloadedModel(
        inspection.name, model.eval(), tokenizer, processor, inspection=inspection, number_format=dtype
    )


def _rooms(where: torch.device, room: int, device: str | None) -> dict[Any, int]:
    """Bytes on each device that may hold weights."""
    if where.type == "cpu":
        return {"cpu": room}
    behind = {"cpu": free_memory(torch.device("cpu"))}
    if where.type != "cuda" or device not in (None, "auto", "cuda"):
        return {where.index or 0: room, **behind}
    return dict.fromkeys(range(torch.cuda.device_count()), room) | behind
