"""Whether llama.cpp can hold a model, found out by the rules of the export itself and before anything is written."""

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
    """How `prunelab export` writes a model as GGUF, or why it does not.

    Attributes:
        architecture: llama.cpp's name for it; empty where it is refused.
        pad_widths: whether it takes `--pad-widths`.
        notes: what the user should know.
        refusal: the reason with the remedy; empty where it is written.
    """

    architecture: str = ""
    pad_widths: bool = False
    notes: Sequence[str] = ()
    refusal: str = ""


def fit_of(model: LanguageModel) -> Fit:
    """How a model fits llama.cpp; of its weights only the biases are looked at."""
    refusal = ""
    for pad_widths in (False, True):
        try:
            layout = layout_of(model, pad_widths=pad_widths)
            vocabulary_of(model)
        except UnsupportedModel as error:
            refusal = str(error)  # the last one: what filling up does not mend either
        else:
            return Fit(layout.architecture, pad_widths, layout.notes)
    return Fit(refusal=refusal)
