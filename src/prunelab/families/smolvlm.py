"""SmolVLM (Marafioti et al. 2025): Idefics3's parts in small, under class names of its own."""

from __future__ import annotations

from prunelab.families import register
from prunelab.families.base import ModelFamily

SMOLVLM = register(
    ModelFamily(
        name="smolvlm",
        architectures=("SmolVLMForConditionalGeneration", "PrunedSmolVLMForConditionalGeneration"),
        stock_class="SmolVLMForConditionalGeneration",
        mixed_class="PrunedSmolVLMForConditionalGeneration",
        auto_class="AutoModelForImageTextToText",
        decoder="model.text_model",
        bias_switches={"self_attn.o_proj": "attention_bias", "mlp.down_proj": "mlp_bias"},
        language_family="llama",
    )
)
