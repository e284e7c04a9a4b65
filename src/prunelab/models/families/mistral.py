"""Mistral 7B (Jiang et al. 2023): a Llama with an optional sliding window."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.layout import ModelFamily

MISTRAL = register(
    ModelFamily(
        name="mistral",
        stock_class="MistralForCausalLM",
        llama_unless="sliding_window",
    )
)
