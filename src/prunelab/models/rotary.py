"""Rotary frequencies that depend on a text's length, fixed for the texts that have the same ones.

transformers chooses such frequencies anew in every forward, by the greatest position in the batch: `longrope` has one
set up to the length of its pretraining and another beyond, `dynamic` another for each length beyond the context. Texts
that share a prefix or a batch would get frequencies that are not their own. So texts are computed class by class: those
of one class have the same frequencies, which are set and kept while they run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from prunelab.errors import InvalidRequest, UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunelab.models.tensor_files import StoredTensor

STORED_FREQUENCIES = "rotary_emb.inv_freq"
"""How the names end under which older versions of transformers stored rotary frequencies."""


class RotaryLengths:
    """How the rotary frequencies of some models depend on the length of a text.

    Attributes:
        limit: up to this many tokens all texts have the same frequencies; None where all have at any length.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        """Take models that run the same texts.

        Raises:
            UnsupportedModel: frequencies that depend on the length in a way that is not known.
        """
        found = [module for model in models for module in rotary_modules(model)]
        self._modules = list({id(module): module for module in found}.values())
        limits = [_limit(module) for module in self._modules]
        self.limit: int | None = min(limits, default=None)
        self._each_length = any("dynamic" in module.rope_type for module in self._modules)

    def key(self, length: int) -> int:
        """The class of a text of so many tokens: texts of one class have the same frequencies.

        It is a length that has them.
        """
        if self.limit is None:
            return 0
        if length <= self.limit:
            return self.limit
        return length if self._each_length else self.limit + 1

    def classes(self, lengths: Sequence[int]) -> dict[int, list[int]]:
        """The indices of texts by their class, the shortest first; all in one where frequencies do not depend."""
        by_key: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            by_key.setdefault(self.key(length), []).append(index)
        return dict(sorted(by_key.items()))

    @contextmanager
    def fixed(self, key: int) -> Iterator[None]:
        """The frequencies of a class, whatever positions a batch has, for as long as the `with` lasts."""
        before = [(module, module.rope_type, module.inv_freq, module.attention_scaling) for module in self._modules]
        try:
            for module in self._modules:
                frequencies, scaling = _frequencies(module, key)
                module.inv_freq, module.attention_scaling = frequencies, scaling
                module.rope_type = "default"  # transformers leaves these as they are
            yield
        finally:
            for module, kind, frequencies, scaling in before:
                module.rope_type, module.inv_freq, module.attention_scaling = kind, frequencies, scaling

    def require_one_class(self, name: str, lengths: int, why: str) -> None:
        """Refuse texts of up to so many tokens where not all have the same frequencies.

        Raises:
            InvalidRequest: naming the length up to which they have.
        """
        if self.limit is not None and lengths > self.limit:
            raise InvalidRequest(
                f"{name}'s rotary frequencies change beyond {self.limit} tokens, and {why}: set "
                f"max_position_embeddings to {self.limit} in a copy of its config.json"
            )


def contradicted_theta(config: Any, stored: Mapping[str, StoredTensor]) -> str | None:
    """What stored rotary frequencies say against config.json, as a sentence; None where they agree, or none are stored.

    transformers computes the frequencies from config.json and leaves stored ones unread. They differ where a converter
    did not write `rope_theta`, or where it was changed afterwards.

    Args:
        config: the model's.
        stored: the checkpoint's tensors by name.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    theta, head = rope.get("rope_theta"), getattr(text, "head_dim", None)
    head = head or text.hidden_size // text.num_attention_heads
    if theta is None or rope.get("rope_type", "default") != "default" or head < 4:
        return None
    expected = float(theta) ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    for name, tensor in stored.items():
        if not name.endswith(STORED_FREQUENCIES) or tensor.shape != tuple(expected.shape):
            continue
        held = tensor.read().double()
        if not torch.allclose(held, expected, rtol=0.05, atol=1e-6):  # 16 bits keep two digits
            last = float(held[-1])
            said = f" (those of rope_theta {float(f'{last ** (-head / (head - 2)):.3g}'):,.0f})" if 0 < last < 1 else ""
            return (
                f"the stored {name}{said} are not those of rope_theta {theta:,.6g} in config.json, which is taken as "
                "transformers does: correct rope_theta if the model was trained with the stored ones"
            )
    return None


def rotary_modules(model: Any) -> list[Any]:
    """The rotary embeddings of a model's decoder whose frequencies depend on the length.

    Raises:
        UnsupportedModel: frequencies that depend on the length in a way that is not known.
    """
    found: list[Any] = []
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        kinds = kind.values() if isinstance(kind, dict) else [kind]
        if not any(isinstance(one, str) and ("dynamic" in one or one == "longrope") for one in kinds):
            continue
        if isinstance(kind, dict):
            raise UnsupportedModel(
                "rotary frequencies that depend on the text's length and on the type of layer cannot be scored: "
                "evaluate this model with lm-eval itself"
            )
        found.append(module)
    return found


def _limit(module: Any) -> int:
    if module.rope_type == "longrope":
        return int(module.config.rope_parameters["original_max_position_embeddings"])
    return int(module.original_max_seq_len)


def _frequencies(module: Any, length: int) -> tuple[torch.Tensor, float]:
    """What transformers gives a text of so many tokens by itself: inverse frequencies, and the scale of cos and sin."""
    if length <= _limit(module):
        frequencies, scaling = module.original_inv_freq, None
    else:
        frequencies, scaling = ROPE_INIT_FUNCTIONS[module.rope_type](module.config, module.inv_freq.device, length)
    # longrope keeps the scale that it was built with; that of dynamic is 1 at any length.
    own = module.attention_scaling if scaling is None or module.rope_type == "longrope" else scaling
    return frequencies.to(module.inv_freq.device), float(own)
