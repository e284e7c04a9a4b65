"""Gemma-2 (Gemma Team 2024): soft-capped logits, alternating attention windows, four norms a block."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.layout import ModelFamily

GEMMA2 = register(
    ModelFamily(
        name="gemma2",
        stock_class="Gemma2ForCausalLM",
        bias_switches={"self_attn.o_proj": "attention_bias"},
        output_norms={
            "self_attn.o_proj": "post_attention_layernorm",
            "mlp.down_proj": "post_feedforward_layernorm",
        },
        needs_start_token=True,
    )
)
