"""A model whose weights stay on disk: a block at a time is brought in, and everything that is arithmetic on statistics
and single weights works as on a loaded one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.modeling_utils import local_torch_dtype

from prunelab.errors import InvalidRequest, UnsupportedModel
from prunelab.io.fingerprint import config_hash, tensor_bytes
from prunelab.models.families import ModelFamily
from prunelab.models.loading import (
    LanguageModel,
    class_for,
    explained,
    load_model,
    load_processor,
    load_tokenizer,
    parse_device,
    parse_dtype,
    supported,
)
from prunelab.models.memory import free_memory, is_too_large
from prunelab.models.streaming.decoder import StreamedDecoder
from prunelab.models.tensor_files import TensorFiles

# What a checkpoint's folder needs besides its weights' shards.
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


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
    if is_too_large(weight_bytes_of(name, dtype), room):
        return open_streamed(name, device=device, dtype=dtype)
    return load_model(name, device=device, dtype=dtype)


def weight_bytes_of(name: str, dtype: str | None = None) -> int:
    """What a checkpoint's weights take in a number format, or in their own, known from the config alone."""
    number_format = parse_dtype(dtype)
    _, _, config, family = supported(name)
    own = getattr(config, "dtype", None)
    chosen = number_format if isinstance(number_format, torch.dtype) else own
    chosen = chosen if isinstance(chosen, torch.dtype) else torch.float32
    outline = empty_model(class_for(config, family), config, chosen)
    numbers: int = sum(parameter.numel() for parameter in outline.parameters())
    return numbers * chosen.itemsize


def open_streamed(name: str, *, device: str | None = None, dtype: str | None = None) -> StreamedModel:
    """A checkpoint as `load_model` knows it, its weights left where they are.

    Raises:
        CheckpointError: missing, gated, damaged, a shard missing or of the wrong size.
        UnsupportedModel: an architecture that no family describes.
        InvalidRequest: an unknown device or dtype.
    """
    where, number_format = parse_device(device), parse_dtype(dtype)
    called, name, config, family = supported(name)
    if not family.stored_as_named:
        raise UnsupportedModel(
            f"{called} is a {family.name}, whose weights cannot be read from disk block by block: take a machine, or "
            "with --memory a budget, that it fits into"
        )
    folder = Path(name) if Path(name).is_dir() else _fetched(name)
    tokenizer, processor = load_tokenizer(name, config), load_processor(name, config) if family.sees else None
    files = TensorFiles.open(folder)
    if isinstance(number_format, str):
        number_format = getattr(config, "dtype", None) or torch.float32
    if not isinstance(number_format, torch.dtype):
        raise InvalidRequest(f"{name} names its number format {number_format!r}: give --dtype")
    model = empty_model(class_for(config, family), config, number_format, where)
    with suppress(OSError):  # where there is none, the one made from the config stays
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = name
    return StreamedModel(called, model.eval(), tokenizer, processor, files=files, family=family, where=where)


def _fetched(name: str) -> Path:
    """The hub's copy of a checkpoint, on this disk."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise explained(name, error) from error


def empty_model(
    model_class: Any, config: Any, dtype: torch.dtype, device: torch.device | None = None
) -> PreTrainedModel:
    """A model without values.

    Args:
        model_class: of transformers.
        config: its config.
        dtype: number format of the values that it would have.
        device: where its buffers, which no checkpoint holds, are made; without one they have no values either.
    """
    with local_torch_dtype(dtype), torch.device("meta"), no_init_weights():
        model: PreTrainedModel = model_class(config)
    model.config.dtype = dtype
    model.tie_weights()
    if device is not None:
        for module in model.modules():
            buffers = {name: b for name, b in module.named_buffers(recurse=False) if b.is_meta}
            for name, buffer in buffers.items():
                module._buffers[name] = torch.empty_like(buffer, device=device)
            if buffers:
                # As loading does: the class knows what belongs in them. Its weights here have no values to change.
                with torch.no_grad():
                    model._init_weights(module)
    return model
