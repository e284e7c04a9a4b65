"""Names for content: what two things share exactly when they are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xxhash

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# What a config says besides how the model computes.
_INCIDENTAL = (
    "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache", "bos_token_id",
    "eos_token_id", "pad_token_id", "id2label", "label2id", "problem_type", "return_dict", "output_attentions",
    "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder", "initializer_range", "pretraining_tp",
    "allow_global_per_layer_attribute_access", "_name_or_path", "attention_dropout", "task_specific_params",
)  # fmt: skip


def content_hash(value: Mapping[str, Any]) -> str:
    """Hash of a JSON-like mapping, the order of its keys aside; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return xxhash.xxh3_64_hexdigest(text.encode())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's raw bytes, copied to the CPU where it lies elsewhere."""
    array: Any = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return memoryview(array)


def config_hash(model: PreTrainedModel) -> str:
    """Hash of how a model computes, its weights aside."""
    return content_hash(_essential(model.config.to_dict()))


def model_fingerprint(model: PreTrainedModel) -> str:
    """Hash of how a model computes and of its weights, rounded to bfloat16; 32 hexadecimal digits.

    Rounding makes the fingerprint the same whether a checkpoint is loaded in bfloat16 or in float32. Two models that
    differ anywhere by more than about 0.4 % of a weight differ in it, and in practice any fine-tuning does.
    """
    digest = xxhash.xxh3_128(config_hash(model).encode())
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.numel() and tensor.data_ptr() in seen:
            continue  # tied to one that was counted
        seen.add(tensor.data_ptr())
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor_bytes(tensor.to(torch.bfloat16)))
    return str(digest.hexdigest())


def _essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what is incidental, in the configs of a model's parts as well."""
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    for part in ("text_config", "vision_config"):
        if isinstance(kept.get(part), Mapping):
            kept[part] = _essential(kept[part])
    return kept
