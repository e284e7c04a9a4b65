"""Check whether a model can be exported to llama.cpp, by the rules of the export and without writing a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.checkpoint.gguf.architecture import layout_of
from prunelab.checkpoint.gguf.tokenizer import vocabulary_of
from prunelab.errors import UnsupportedModel

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel


@dataclass(frozen=True)
class Fit:
    """How `prunelab export` writes a model as GGUF, or why it refuses the model.

    Attributes:
        architecture: llama.cpp's name of the architecture; empty if the model is refused.
        pad_widths: whether the export needs `--pad-widths`.
        notes: notes for the user.
        refusal: the reason and the remedy; empty if the model can be exported.
    """

    architecture: str = ""
    pad_widths: bool = False
    notes: Sequence[str] = ()
    refusal: str = ""


def fit_of(model: LanguageModel) -> Fit:
    """Check how a model fits llama.cpp; reads no weights except the biases."""
    refusal = ""
    for pad_widths in (False, True):
        try:
            layout = layout_of(model, pad_widths=pad_widths)
            vocabulary_of(model)
        except UnsupportedModel as error:
            refusal = str(error)  # the last error: padding does not solve it either
        else:
            return Fit(layout.architecture, pad_widths, layout.notes)
    return Fit(refusal=refusal)
