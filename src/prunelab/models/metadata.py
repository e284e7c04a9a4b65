"""What can be known of a model without its weights: its tokenizer, its context, its size."""

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
    """A model of which only the configuration and the tokenizer are there.

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
        """Tokens that the model can look at."""
        return int(self.config.get_text_config().max_position_embeddings)

    @cached_property
    def decoder(self) -> Decoder | None:
        """The decoder without values; None where no stock class builds it, as for checkpoints of mixed widths."""
        family = find_family(self.config, self.path)
        if family.mixed_class in (self.config.architectures or ()):
            return None
        with torch.device("meta"):
            return decoder_of(getattr(transformers, family.stock_class)(self.config))

    def _own_format(self) -> torch.dtype:
        """The number format that the configuration names; without one, the weights' own where they lie in a folder."""
        folder = Path(str(checkpoint_of(self.path) or self.path))
        stored = TensorFiles.open(folder).tensors.values() if folder.is_dir() else ()
        return number_format_of(self.config, (tensor.dtype for tensor in stored), self.path)[0]

    def weight_bytes(self, ratio: float = 0.0, dtype: str | None = None) -> int | None:
        """Bytes of the weights when a share of the blocks' projection weights is gone; None where not known.

        Args:
            ratio: the share.
            dtype: the number format; the checkpoint's own if not given.
        """
        if self.decoder is None:
            return None
        chosen = getattr(torch, dtype) if dtype in DTYPES else None
        size = (chosen or self._own_format()).itemsize
        return round((self.decoder.parameters - ratio * self.decoder.cost) * size)


def load_outline(path: str) -> ModelMetadata:
    """Read a model's configuration and tokenizer.

    Raises:
        CheckpointError: one of them is missing, gated or damaged.
        UnsupportedModel: an architecture that no family describes.
    """
    config = load_config(path)
    find_family(config, path)
    where = str(checkpoint_of(path) or Path(path))
    return ModelMetadata(path, config, load_tokenizer(where, config))
