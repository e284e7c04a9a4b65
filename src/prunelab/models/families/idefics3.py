"""Idefics3 (Laurençon et al. 2024): a SigLIP vision encoder, a connector and a Llama."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.families.llama import LLAMA

IDEFICS3 = register(LLAMA.inside("idefics3", "Idefics3ForConditionalGeneration", decoder="model.text_model"))
