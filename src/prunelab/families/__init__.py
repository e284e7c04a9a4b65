"""Model families: the architectures that prunelab can take apart, one file each."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from transformers import PreTrainedConfig, PreTrainedModel

from prunelab.errors import UnsupportedModel
from prunelab.families.base import BlockShape, Decoder, ModelFamily, Reader, UnitLayout
from prunelab.registry import Registry

families: Registry[ModelFamily] = Registry("family")


def register(family: ModelFamily) -> ModelFamily:
    """Make a family known under its name."""
    return families.add(family.name, family)


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")


def find_family(config: PreTrainedConfig, name: str = "the model") -> ModelFamily:
    """The family of a model, by the architecture that its config names.

    Raises:
        UnsupportedModel: naming the architecture and listing the supported ones.
    """
    family = family_of(config.architectures or (), name)
    inside = config.get_text_config().model_type
    if family.language_family not in (None, inside):
        raise UnsupportedModel(
            f"{name} is a {family.stock_class} around a language model of type {inside!r}, which prunelab cannot take "
            f"apart there: supported inside it is {family.language_family}"
        )
    return family


def family_of(architectures: Sequence[str], name: str = "the model") -> ModelFamily:
    """The family that covers one of the architectures' class names."""
    for family in families.values():
        if any(architecture in family.architectures for architecture in architectures):
            return family
    known = ", ".join(f"{f.stock_class} ({f.name})" for f in families.values())
    given = ", ".join(architectures) or "no architecture in its config.json"
    raise UnsupportedModel(f"{name} is {given}, which prunelab cannot take apart; supported are {known}")


def decoder_of(model: PreTrainedModel) -> Decoder:
    """The decoder inside a loaded model.

    Raises:
        UnsupportedModel: no family covers the model's class.
    """
    return Decoder(model, family_of([type(model).__name__], "the model"))


__all__ = [
    "BlockShape",
    "Decoder",
    "ModelFamily",
    "Reader",
    "UnitLayout",
    "decoder_of",
    "families",
    "family_of",
    "find_family",
    "register",
]
