"""Idefics3 (Laurençon et al. 2024): a Llama behind a SigLIP vision encoder and a connector."""

from __future__ import annotations

from prunelab.models.families import register
from prunelab.models.families.llama import LLAMA

IDEFICS3 = register(LLAMA.inside("idefics3", "Idefics3ForConditionalGeneration", decoder="model.text_model"))
