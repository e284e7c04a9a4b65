"""Hashes of configurations, tensors and models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xxhash

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Config entries that do not affect what the model computes.
_INCIDENTAL = (
    "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache", "bos_token_id",
    "eos_token_id", "pad_token_id", "id2label", "label2id", "problem_type", "return_dict", "output_attentions",
    "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder", "initializer_range", "pretraining_tp",
    "allow_global_per_layer_attribute_access", "_name_or_path", "attention_dropout", "task_specific_params",
)  # fmt: skip


def content_hash(value: Mapping[str, Any]) -> str:
    """Hash of a JSON-like mapping, independent of the order of its keys; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return xxhash.xxh3_64_hexdigest(text.encode())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw bytes of a tensor, copied to the CPU if necessary."""
    array: Any = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return memoryview(array)


def config_hash(model: PreTrainedModel) -> str:
    """Hash of a model's architecture, without its weights."""
    return content_hash(_essential(model.config.to_dict()))


def model_fingerprint(model: PreTrainedModel) -> str:
    """Hash of a model's architecture and of its weights rounded to bfloat16; 32 hexadecimal digits.

    Rounding makes the fingerprint independent of whether a checkpoint is loaded in bfloat16 or float32. Two models have
    different fingerprints if any weight differs by more than about 0.4 %, as after any fine-tuning in practice.
    """
    digest = xxhash.xxh3_128(config_hash(model).encode())
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.numel() and tensor.data_ptr() in seen:
            continue  # tied to a tensor that is already hashed
        seen.add(tensor.data_ptr())
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor_bytes(tensor.to(torch.bfloat16)))
    return str(digest.hexdigest())


def _essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without incidental entries, including the nested configs of text and vision models."""
    essential = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    for part in ("text_config", "vision_config"):
        if isinstance(essential.get(part), Mapping):
            essential[part] = _essential(essential[part])
    return essential
