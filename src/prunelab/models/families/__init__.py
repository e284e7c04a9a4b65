"""Model families: the architectures that prunelab can prune, one file each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunelab.errors import UnsupportedModel
from prunelab.io.registry import Registry, discover
from prunelab.models.decoder import Decoder
from prunelab.models.layout import BlockShape, InputProjection, ModelFamily, UnitLayout

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

families: Registry[ModelFamily] = Registry("family")


def register(family: ModelFamily) -> ModelFamily:
    """Register a family under its name."""
    return families.add(family.name, family)


discover(__name__, __path__)


def find_family(config: PreTrainedConfig, name: str = "the model") -> ModelFamily:
    """The family of a model, by the architecture in its config.

    Raises:
        UnsupportedModel: no family covers the architecture or the language model inside it; lists the supported ones.
    """
    return _family_of(config.architectures or (), config, name)


def decoder_of(model: PreTrainedModel) -> Decoder:
    """The decoder inside a loaded model.

    Raises:
        UnsupportedModel: no family covers the model's class.
    """
    return Decoder(model, _family_of([type(model).__name__], model.config, "the model"))


def _family_of(architectures: Sequence[str], config: PreTrainedConfig, name: str) -> ModelFamily:
    """The family that covers one of the class names and, for a vision-language model, its language model."""
    covering = [family for family in families.values() if not set(architectures).isdisjoint(family.architectures)]
    if not covering:
        known = ", ".join(f"{f.stock_class} ({f.name})" for f in families.values())
        given = ", ".join(architectures) or "no architecture in its config.json"
        raise UnsupportedModel(f"{name} is {given}, which prunelab does not support: give one of {known}")
    inside = config.get_text_config().model_type
    fitting = [family for family in covering if family.language_family in (None, inside)]
    if not fitting:
        raise UnsupportedModel(
            f"{name} is a {covering[0].stock_class} with a language model of type {inside!r}, which prunelab does not "
            f"support: give one with {', '.join(str(f.language_family) for f in covering)}"
        )
    return fitting[0]


__all__ = [
    "BlockShape",
    "Decoder",
    "InputProjection",
    "ModelFamily",
    "UnitLayout",
    "decoder_of",
    "families",
    "find_family",
    "register",
]
