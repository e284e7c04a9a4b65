"""Names of stored tensors that no model of today has, and that change nothing where they are left over."""

from __future__ import annotations

import re

_HARMLESS = re.compile(
    r"(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$"  # computed from config.json since
    r"|(^|\.)(attn|attention|self_attn)\.masked_bias$"  # a constant
    r"|(^|\.)position_ids$"  # 0, 1, 2, ...
)


def is_harmless(name: str) -> bool:
    """Whether a stored tensor is one that older versions of the libraries kept and the model computes itself."""
    return _HARMLESS.search(name) is not None


def listed(names: list[str], most: int = 1) -> str:
    """The first of some names, and how many there are besides."""
    shown, more = ", ".join(names[:most]), len(names) - most
    return shown if more <= 0 else f"{shown} and {more} more"
