"""Qwen2 and Qwen2.5 (Yang et al. 2024): biases on query, key and value."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.layout import ModelFamily

QWEN2 = register(
    ModelFamily(
        name="qwen2",
        stock_class="Qwen2ForCausalLM",
        llama_unless="use_sliding_window",
    )
)
