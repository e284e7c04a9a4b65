"""A model whose weights stay on disk: one block at a time is loaded. Methods that need only statistics and single
weights work as on a loaded model.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import xxhash

from prunelab.io.fingerprint import config_hash, tensor_bytes
from prunelab.io.lazy import torch, transformers
from prunelab.models.loading import (
    LanguageModel,
    inspected,
    load_inspected,
    load_processor,
    load_tokenizer,
    parse_device,
    parse_dtype,
)
from prunelab.models.memory import free_memory, is_too_large
from prunelab.models.streaming.decoder import StreamedDecoder

if TYPE_CHECKING:
    from prunelab.models.families import ModelFamily
    from prunelab.models.inspection import Inspection
    from prunelab.models.tensor_files import TensorFiles


@dataclass(frozen=True)
class StreamedModel(LanguageModel):
    """A language model whose weights stay on disk.

    Attributes:
        files: the checkpoint.
        family: its family.
        where: the device that runs its blocks.
    """

    files: TensorFiles | None = None
    family: ModelFamily | None = None
    where: torch.device | None = None

    @cached_property
    def decoder(self) -> StreamedDecoder:
        """The decoder, which loads its weights while they are used."""
        assert self.files is not None
        assert self.family is not None
        assert self.where is not None
        return StreamedDecoder(self.model, self.family, self.files, self.where)

    @property
    def device(self) -> torch.device:
        """The device that runs its blocks."""
        assert self.where is not None
        return self.where

    @property
    def weight_bytes(self) -> int:
        """Size of all its weights in bytes."""
        return self.decoder.parameters * int(self.model.dtype.itemsize)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the loaded model, computed tensor by tensor; see `model_fingerprint`."""
        digest = xxhash.xxh3_128(config_hash(self.model).encode())
        counted: set[str] = set()
        for name, tensor in sorted(self.model.state_dict().items()):
            source = self.decoder.sources[name]
            if tensor.numel() and source in counted:
                continue  # tied to a tensor that was counted
            counted.add(source)
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            if tensor.numel():
                digest.update(tensor_bytes(self.decoder.tensor(name).to(torch.bfloat16)))
        return str(digest.hexdigest())


def open_model(
    name: str, *, device: str | None = None, dtype: str | None = None, memory: int | None = None
) -> LanguageModel:
    """Load a checkpoint, or open it for streaming if it is too large to be pruned in memory; see `is_too_large`.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; by default the best available device.
        dtype: `float32`, `bfloat16` or `float16`; by default the checkpoint's own.
        memory: memory budget in bytes; by default the device's free memory.

    Raises:
        CheckpointError: the checkpoint is missing, gated or damaged, or `inspected` refuses it.
        UnsupportedModel: no family covers the architecture.
        InvalidRequest: the device or the dtype is not available.
    """
    budget = free_memory(parse_device(device)) if memory is None else memory
    inspection = inspected(name)
    if is_too_large(_bytes_in(inspection, dtype), budget):
        return stream_inspected(inspection, device=device, dtype=dtype)
    return load_inspected(inspection, device=device, dtype=dtype)


def weight_bytes_of(name: str, dtype: str | None = None) -> int:
    """Size of a checkpoint's weights in bytes, in a number format or in the default one, without reading them."""
    return _bytes_in(inspected(name), dtype)


def _bytes_in(inspection: Inspection, dtype: str | None) -> int:
    number_format = parse_dtype(dtype)
    return inspection.weight_bytes(number_format if isinstance(number_format, torch.dtype) else None)


def open_streamed(name: str, *, device: str | None = None, dtype: str | None = None) -> StreamedModel:
    """Open a checkpoint for streaming, with its weights left on disk; arguments as in `load_model`.

    Raises:
        CheckpointError: the checkpoint is missing, gated or damaged, or `inspected` refuses it.
        UnsupportedModel: no family covers the architecture.
        InvalidRequest: the device or the dtype is not available.
    """
    parse_device(device)
    parse_dtype(dtype)
    return stream_inspected(inspected(name), device=device, dtype=dtype)


def stream_inspected(inspection: Inspection, *, device: str | None = None, dtype: str | None = None) -> StreamedModel:
    """Open an inspected checkpoint for streaming; see `open_streamed`."""
    where, number_format = parse_device(device), parse_dtype(dtype)
    path, config, family = inspection.path, inspection.config, inspection.family
    tokenizer, processor = load_tokenizer(path, config), load_processor(path, config) if family.is_multimodal else None
    model = inspection.empty(number_format if isinstance(number_format, torch.dtype) else None, where)
    with suppress(OSError):  # without the file, the generation config built from the config stays
        model.generation_config = transformers.GenerationConfig.from_pretrained(inspection.folder)
    for line in inspection.corrections:
        warnings.warn(f"{inspection.name}: {line}", UserWarning, stacklevel=2)
    model.name_or_path = path
    return StreamedModel(
        inspection.name, model.eval(), tokenizer, processor, inspection=inspection,
        files=inspection.files, family=family, where=where,
    )  # fmt: skip
