"""Tied embeddings: the weights decide whether head and embedding are tied, and the configuration's flag follows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from prunelab.models.tensor_files import StoredTensor

ROWS_AT_ONCE = 4096
"""Rows of two stored tensors that are compared at once."""


def is_tied(model: PreTrainedModel) -> bool:
    """Whether a model's head and embedding share their weight."""
    head: Any = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def with_flag(config: PreTrainedConfig, tied: bool) -> PreTrainedConfig:
    """The configuration with `tie_word_embeddings` set to `tied`; a copy if the flag changes."""
    if bool(getattr(config, "tie_word_embeddings", False)) == tied:
        return config
    corrected = copy.deepcopy(config)
    corrected.tie_word_embeddings = tied
    text = corrected.get_text_config()
    if not tied and getattr(text, "tie_word_embeddings", False):
        text.tie_word_embeddings = False  # LLaVA's configuration reads the flag from its text config
    return corrected


def config_of(model: PreTrainedModel) -> PreTrainedConfig:
    """A model's configuration, with the tying flag corrected to match its weights."""
    return with_flag(model.config, is_tied(model))


def have_same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored tensors are equal; reads both up to the first difference.

    Compares values, so that number formats may differ. NaN is unequal to everything.
    """
    if one.shape != other.shape:
        return False
    pairs = zip(one.parts(ROWS_AT_ONCE), other.parts(ROWS_AT_ONCE), strict=True)
    wide = torch.promote_types(one.dtype, other.dtype)
    return all(torch.equal(a.to(wide), b.to(wide)) for a, b in pairs)
