"""Whether embeddings and head are one tensor: the weights decide, and the configuration's flag follows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from prunelab.models.tensor_files import StoredTensor

ROWS_AT_ONCE = 4096
"""Rows of two stored tensors that are compared at a time."""


def is_tied(model: PreTrainedModel) -> bool:
    """Whether a model's head is its embedding."""
    head: Any = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def with_flag(config: PreTrainedConfig, tied: bool) -> PreTrainedConfig:
    """The configuration with `tie_word_embeddings` as the weights are; a copy where it says otherwise."""
    if bool(getattr(config, "tie_word_embeddings", False)) == tied:
        return config
    corrected = copy.deepcopy(config)
    corrected.tie_word_embeddings = tied
    text = corrected.get_text_config()
    if not tied and getattr(text, "tie_word_embeddings", False):
        text.tie_word_embeddings = False  # LLaVA's configuration takes the flag from there
    return corrected


def config_of(model: PreTrainedModel) -> PreTrainedConfig:
    """A model's configuration, its flag as the model's own weights are."""
    return with_flag(model.config, is_tied(model))


def have_same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored tensors are equal; both are read as far as they are.

    Values are compared, so that number formats may differ. NaN differs from everything.
    """
    if one.shape != other.shape:
        return False
    pairs = zip(one.parts(ROWS_AT_ONCE), other.parts(ROWS_AT_ONCE), strict=True)
    wide = torch.promote_types(one.dtype, other.dtype)
    return all(torch.equal(a.to(wide), b.to(wide)) for a, b in pairs)
