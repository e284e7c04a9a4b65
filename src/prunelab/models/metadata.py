"""Properties of a model that need no weights: its tokenizer, its context length, its size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import torch, transformers
from prunelab.models.bundled import checkpoint_of
from prunelab.models.families import Decoder, decoder_of, find_family
from prunelab.models.loading import DTYPES, load_config, load_tokenizer
from prunelab.models.number_format import number_format_of
from prunelab.models.tensor_files import TensorFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelMetadata:
    """The configuration and the tokenizer of a model.

    Attributes:
        path: a folder, an id on the hub, or a pocket model.
        config: its configuration.
        tokenizer: its tokenizer.
    """

    path: str
    config: Any
    tokenizer: PreTrainedTokenizerBase

    @property
    def context_length(self) -> int:
        """The model's context length in tokens."""
        return int(self.config.get_text_config().max_position_embeddings)

    @cached_property
    def decoder(self) -> Decoder | None:
        """The decoder on the meta device; None for checkpoints with blocks of different widths."""
        family = find_family(self.config, self.path)
        if family.mixed_class in (self.config.architectures or ()):
            return None
        with torch.device("meta"):
            return decoder_of(getattr(transformers, family.stock_class)(self.config))

    def _own_format(self) -> torch.dtype:
        """The configuration's number format; if it names none, that of the weights in a local folder."""
        folder = Path(str(checkpoint_of(self.path) or self.path))
        stored = TensorFiles.open(folder).tensors.values() if folder.is_dir() else ()
        return number_format_of(self.config, (tensor.dtype for tensor in stored), self.path)[0]

    def weight_bytes(self, ratio: float = 0.0, dtype: str | None = None) -> int | None:
        """Size of the weights in bytes after pruning at a ratio; None if it is unknown.

        Args:
            ratio: share of the blocks' projection weights that is removed.
            dtype: the number format; by default the checkpoint's own.
        """
        if self.decoder is None:
            return None
        chosen = getattr(torch, dtype) if dtype in DTYPES else None
        size = (chosen or self._own_format()).itemsize
        return round((self.decoder.parameters - ratio * self.decoder.cost) * size)


def load_outline(path: str) -> ModelMetadata:
    """Read a model's configuration and tokenizer.

    Raises:
        CheckpointError: the configuration or the tokenizer is missing, gated or damaged.
        UnsupportedModel: no family covers the architecture.
    """
    config = load_config(path)
    find_family(config, path)
    where = str(checkpoint_of(path) or Path(path))
    return ModelMetadata(path, config, load_tokenizer(where, config))
