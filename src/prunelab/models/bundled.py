"""The pocket models: small models of the paper's architectures, and the folders of their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import DataError
from prunelab.io.structured import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONTEXT = 768
_SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
}
_GEMMA2: dict[str, Any] = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 256}

VISION_LANGUAGE_MODELS = ("pocket-idefics3",)
"""Trained separately, by `tools.pocket_training.vision.train`."""
POCKET_MODELS = ("pocket-llama", "pocket-qwen2", "pocket-gemma2")
ALL_MODELS = (*POCKET_MODELS, *VISION_LANGUAGE_MODELS)


def checkpoint_of(name: str) -> Path | None:
    """The folder of a pocket model in the package; None for other names, or if a local checkpoint has the name."""
    if name not in ALL_MODELS or (Path(name) / "config.json").exists():
        return None
    return Path(__file__).parents[1] / "pocket" / "checkpoints" / name


def is_pocket(name: str) -> bool:
    """Whether a name or folder is a pocket model or a checkpoint pruned from one."""
    if checkpoint_of(name) is not None:
        return True
    try:
        plan = read_json_object(Path(name) / "pruning_plan.json")
    except DataError:  # no plan, or a damaged one, which its readers report
        return False
    base = plan.get("base")
    return isinstance(base, dict) and base.get("name") in ALL_MODELS


def config_of(name: str, vocabulary: int, begin: int, end: int) -> PreTrainedConfig:
    """The configuration of a pocket model.

    Grouped-query attention in all; queries, keys and values with biases in `pocket-qwen2`; soft-capped logits and
    windows in every other block in `pocket-gemma2`.

    Args:
        name: one of `POCKET_MODELS`.
        vocabulary: number of tokens.
        begin: id of the start token.
        end: id of the end token, also used for padding.
    """
    from transformers import Gemma2Config, LlamaConfig, Qwen2Config

    special = {"vocab_size": vocabulary, "bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    if name == "pocket-llama":
        return LlamaConfig(**_SHAPE, **special, head_dim=32, rope_parameters=_rotary(5e5))
    if name == "pocket-qwen2":
        return Qwen2Config(**_SHAPE, **special, head_dim=32, rope_parameters=_rotary(1e6))
    return Gemma2Config(**_SHAPE, **special, **_GEMMA2, rope_parameters=_rotary(1e4))


def _rotary(theta: float) -> dict[str, Any]:
    """Rotary parameters of the models of this architecture that the paper prunes."""
    return {"rope_type": "default", "rope_theta": theta}
