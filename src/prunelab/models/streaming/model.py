"""A model whose weights stay on disk: a block at a time is brought in, and everything that is arithmetic on statistics
and single weights works as on a loaded one.
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
        family: how it is taken apart.
        where: the device that its blocks are run on.
    """

    files: TensorFiles | None = None
    family: ModelFamily | None = None
    where: torch.device | None = None

    @cached_property
    def decoder(self) -> StreamedDecoder:
        """The decoder, without values."""
        assert self.files is not None
        assert self.family is not None
        assert self.where is not None
        return StreamedDecoder(self.model, self.family, self.files, self.where)

    @property
    def device(self) -> torch.device:
        """Where its blocks are run."""
        assert self.where is not None
        return self.where

    @property
    def weight_bytes(self) -> int:
        """Of all its weights."""
        return self.decoder.parameters * int(self.model.dtype.itemsize)

    @cached_property
    def fingerprint(self) -> str:
        """The same as the loaded model's, read a tensor at a time; see `model_fingerprint`."""
        digest = xxhash.xxh3_128(config_hash(self.model).encode())
        seen: set[str] = set()
        for name, tensor in sorted(self.model.state_dict().items()):
            source = self.decoder.sources[name]
            if tensor.numel() and source in seen:
                continue  # tied to one that was counted
            seen.add(source)
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            if tensor.numel():
                digest.update(tensor_bytes(self.decoder.tensor(name).to(torch.bfloat16)))
        return str(digest.hexdigest())


def open_model(
    name: str, *, device: str | None = None, dtype: str | None = None, memory: int | None = None
) -> LanguageModel:
    """A checkpoint loaded, or streamed where it is too large to be pruned in memory; see `is_too_large`.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; the best there is if not given.
        dtype: `float32`, `bfloat16` or `float16`; the checkpoint's own if not given.
        memory: bytes that it may take; what the device has free if not given.
    """
    room = free_memory(parse_device(device)) if memory is None else memory
    inspection = inspected(name)
    if is_too_large(_bytes_in(inspection, dtype), room):
        return stream_inspected(inspection, device=device, dtype=dtype)
    return load_inspected(inspection, device=device, dtype=dtype)


def weight_bytes_of(name: str, dtype: str | None = None) -> int:
    """What a checkpoint's weights take in a number format, or in their own, known without reading them."""
    return _bytes_in(inspected(name), dtype)


def _bytes_in(inspection: Inspection, dtype: str | None) -> int:
    asked = parse_dtype(dtype)
    return inspection.weight_bytes(asked if isinstance(asked, torch.dtype) else None)


def open_streamed(name: str, *, device: str | None = None, dtype: str | None = None) -> StreamedModel:
    """A checkpoint as `load_model` knows it, its weights left where they are.

    Raises:
        CheckpointError: missing, gated, damaged, or whatever `inspected` refuses.
        UnsupportedModel: an architecture that no family describes.
        InvalidRequest: an unknown device or dtype.
    """
    parse_device(device)
    parse_dtype(dtype)
    return stream_inspected(inspected(name), device=device, dtype=dtype)


def stream_inspected(inspection: Inspection, *, device: str | None = None, dtype: str | None = None) -> StreamedModel:
    """An inspected checkpoint, its weights left where they are; see `open_streamed`."""
    where, number_format = parse_device(device), parse_dtype(dtype)
    path, config, family = inspection.path, inspection.config, inspection.family
    tokenizer, processor = load_tokenizer(path, config), load_processor(path, config) if family.is_multimodal else None
    model = inspection.empty(number_format if isinstance(number_format, torch.dtype) else None, where)
    with suppress(OSError):  # where there is none, the one made from the config stays
        model.generation_config = transformers.GenerationConfig.from_pretrained(inspection.folder)
    for line in inspection.corrections:
        warnings.warn(f"{inspection.name}: {line}", UserWarning, stacklevel=2)
    model.name_or_path = path
    return StreamedModel(
        inspection.name, model.eval(), tokenizer, processor, inspection=inspection,
        files=inspection.files, family=family, where=where,
    )  # fmt: skip
