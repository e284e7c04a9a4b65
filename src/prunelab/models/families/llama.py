"""Llama 1, 2, 3 and 3.x (Touvron et al. 2023; Dubey et al. 2024)."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.layout import ModelFamily

LLAMA = register(
    ModelFamily(
        name="llama",
        stock_class="LlamaForCausalLM",
        bias_switches={"self_attn.o_proj": "attention_bias", "mlp.down_proj": "mlp_bias"},
    )
)
