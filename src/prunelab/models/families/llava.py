"""LLaVA 1.5 and its variants (Liu et al. 2024): a CLIP vision encoder, a two-layer connector and a language model."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.families.llama import LLAMA
from prunelab.models.families.mistral import MISTRAL
from prunelab.models.families.qwen2 import QWEN2

STOCK, DECODER = "LlavaForConditionalGeneration", "model.language_model"

LLAVA, LLAVA_MISTRAL, LLAVA_QWEN2 = (
    register(family.inside(name, STOCK, DECODER))
    for name, family in (("llava", LLAMA), ("llava_mistral", MISTRAL), ("llava_qwen2", QWEN2))
)
