"""Idefics3 (Laurençon et al. 2024): a Llama behind a SigLIP vision encoder and a connector, which stay whole."""

from __future__ import annotations

from prunelab.families import register
from prunelab.families.base import ModelFamily

IDEFICS3 = register(
    ModelFamily(
        name="idefics3",
        architectures=("Idefics3ForConditionalGeneration", "PrunedIdefics3ForConditionalGeneration"),
        stock_class="Idefics3ForConditionalGeneration",
        mixed_class="PrunedIdefics3ForConditionalGeneration",
        auto_class="AutoModelForImageTextToText",
        decoder="model.text_model",
        bias_switches={"self_attn.o_proj": "attention_bias", "mlp.down_proj": "mlp_bias"},
        language_family="llama",
    )
)
