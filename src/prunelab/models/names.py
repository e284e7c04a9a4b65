"""Names of stored tensors that current model classes do not have and that have no effect."""

from __future__ import annotations

import re

_HARMLESS = re.compile(
    r"(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$"  # computed from config.json since
    r"|(^|\.)(attn|attention|self_attn)\.masked_bias$"  # a constant
    r"|(^|\.)position_ids$"  # 0, 1, 2, ...
)


def is_harmless(name: str) -> bool:
    """Whether older library versions stored a tensor with this name that the model computes itself."""
    return _HARMLESS.search(name) is not None


def listed(names: list[str], most: int = 1) -> str:
    """The first `most` names, and the number of the others."""
    shown, more = ", ".join(names[:most]), len(names) - most
    return shown if more <= 0 else f"{shown} and {more} more"
