"""SmolVLM (Marafioti et al. 2025): a small Idefics3 with its own class names."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.families.llama import LLAMA

SMOLVLM = register(LLAMA.inside("smolvlm", "SmolVLMForConditionalGeneration", decoder="model.text_model"))
