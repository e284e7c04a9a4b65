"""SmolVLM (Marafioti et al. 2025): Idefics3's parts in small, under class names of its own."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.families.llama import LLAMA

SMOLVLM = register(LLAMA.inside("smolvlm", "SmolVLMForConditionalGeneration", decoder="model.text_model"))
