"""Length-dependent rotary frequencies, fixed for texts that share them.

transformers recomputes such frequencies in every forward pass from the greatest position in the batch: `longrope` has
one set up to its pretraining length and another beyond, `dynamic` a different set for each length beyond the context.
Texts that share a prefix or a batch would get the frequencies of another text. Texts are therefore grouped into classes
with equal frequencies, and each class runs with its frequencies fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prunelab.errors import InvalidRequest, UnsupportedModel
from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunelab.models.tensor_files import StoredTensor

STORED_FREQUENCIES = "rotary_emb.inv_freq"
"""How the names end under which older versions of transformers stored rotary frequencies."""


class RotaryLengths:
    """The dependence of some models' rotary frequencies on the length of a text.

    Attributes:
        limit: number of tokens up to which all texts have the same frequencies; None if the length has no effect.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        """Collect the length-dependent rotary embeddings of models that run the same texts.

        Raises:
            UnsupportedModel: the dependence on the length is not supported.
        """
        modules = [module for model in models for module in rotary_modules(model)]
        self._modules = list({id(module): module for module in modules}.values())
        limits = [_limit(module) for module in self._modules]
        self.limit: int | None = min(limits, default=None)
        self._each_length = any("dynamic" in module.rope_type for module in self._modules)

    def key(self, length: int) -> int:
        """The class of a text with `length` tokens: a representative length with the same frequencies."""
        if self.limit is None:
            return 0
        if length <= self.limit:
            return self.limit
        return length if self._each_length else self.limit + 1

    def classes(self, lengths: Sequence[int]) -> dict[int, list[int]]:
        """Indices of texts by class, shortest class first; a single class if the length has no effect."""
        by_key: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            by_key.setdefault(self.key(length), []).append(index)
        return dict(sorted(by_key.items()))

    @contextmanager
    def fixed(self, key: int) -> Iterator[None]:
        """Fix the frequencies of a class for the duration of the `with` block, whatever positions a batch has."""
        before = [(module, module.rope_type, module.inv_freq, module.attention_scaling) for module in self._modules]
        try:
            for module in self._modules:
                frequencies, scaling = _frequencies(module, key)
                module.inv_freq, module.attention_scaling = frequencies, scaling
                module.rope_type = "default"  # transformers does not recompute this type
            yield
        finally:
            for module, kind, frequencies, scaling in before:
                module.rope_type, module.inv_freq, module.attention_scaling = kind, frequencies, scaling

    def require_one_class(self, name: str, lengths: int, why: str) -> None:
        """Refuse texts of up to `lengths` tokens that do not all have the same frequencies.

        Args:
            name: the model's name in error messages.
            lengths: the most tokens of a text.
            why: the reason why one class is needed, for the message.

        Raises:
            InvalidRequest: some texts have other frequencies; names the limit.
        """
        if self.limit is not None and lengths > self.limit:
            raise InvalidRequest(
                f"{name}'s rotary frequencies change beyond {self.limit} tokens, and {why}: set "
                f"max_position_embeddings to {self.limit} in a copy of its config.json"
            )


def contradicted_theta(config: Any, stored: Mapping[str, StoredTensor]) -> str | None:
    """Describe how stored rotary frequencies contradict config.json; None if they agree or none are stored.

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
        frequencies = tensor.read().double()
        if not torch.allclose(frequencies, expected, rtol=0.05, atol=1e-6):  # 16 bits keep two digits
            last = float(frequencies[-1])
            origin = (
                f" (those of rope_theta {float(f'{last ** (-head / (head - 2)):.3g}'):,.0f})" if 0 < last < 1 else ""
            )
            return (
                f"the stored {name}{origin} are not those of rope_theta {theta:,.6g} in config.json, which is taken as "
                "transformers does: correct rope_theta if the model was trained with the stored ones"
            )
    return None


def rotary_modules(model: Any) -> list[Any]:
    """The rotary embeddings of a model whose frequencies depend on the length.

    Raises:
        UnsupportedModel: the dependence on the length is not supported.
    """
    modules: list[Any] = []
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        kinds = kind.values() if isinstance(kind, dict) else [kind]
        if not any(isinstance(name, str) and ("dynamic" in name or name == "longrope") for name in kinds):
            continue
        if isinstance(kind, dict):
            raise UnsupportedModel(
                "rotary frequencies that depend on both the text's length and the layer type are not supported: "
                "evaluate this model with lm-eval itself"
            )
        modules.append(module)
    return modules


def _limit(module: Any) -> int:
    if module.rope_type == "longrope":
        return int(module.config.rope_parameters["original_max_position_embeddings"])
    return int(module.original_max_seq_len)


def _frequencies(module: Any, length: int) -> tuple[torch.Tensor, float]:
    """The inverse frequencies and the scale of cos and sin that transformers uses for a text of this length."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if length <= _limit(module):
        frequencies, scaling = module.original_inv_freq, None
    else:
        frequencies, scaling = ROPE_INIT_FUNCTIONS[module.rope_type](module.config, module.inv_freq.device, length)
    # longrope keeps its initial scale; the scale of dynamic is 1 at any length.
    scale = module.attention_scaling if scaling is None or module.rope_type == "longrope" else scaling
    return frequencies.to(module.inv_freq.device), float(scale)
