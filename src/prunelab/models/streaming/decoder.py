"""A decoder whose weights stay on disk: each block, and the modules before the blocks, are loaded while they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prunelab.errors import CheckpointError
from prunelab.io.lazy import nn, torch
from prunelab.models.decoder import ROWS_AT_ONCE
from prunelab.models.families import Decoder, ModelFamily

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunelab.models.input_recorder import InputRecorder
    from prunelab.models.tensor_files import TensorFiles


class StreamedDecoder(Decoder):
    """A decoder on the meta device that reads its weights from files.

    Args:
        model: the model on the meta device, except its buffers.
        family: the family that names the parts of the model.
        files: the checkpoint.
        device: the device that runs the blocks.
    """

    def __init__(self, model: PreTrainedModel, family: ModelFamily, files: TensorFiles, device: torch.device) -> None:
        super().__init__(model, family)
        self.files = files
        self.device = device

    @cached_property
    def sources(self) -> dict[str, str]:
        """The stored name of every tensor of the model; tied tensors share a name.

        Raises:
            CheckpointError: a tensor is missing, or has another shape.
        """
        state = self.model.state_dict(keep_vars=True)
        stored: dict[int, str] = {}
        for name, tensor in state.items():
            if name in self.files.tensors:
                stored.setdefault(id(tensor), name)
        missing = [name for name, tensor in state.items() if id(tensor) not in stored]
        if missing:
            raise CheckpointError(
                f"{self.files.folder} lacks {missing[0]}, which {type(self.model).__name__} needs: fetch the "
                "checkpoint again"
            )
        wrong = [
            name
            for name, tensor in state.items()
            if self.files.tensors[stored[id(tensor)]].shape != tuple(tensor.shape)
        ]
        if wrong:
            raise CheckpointError(
                f"{self.files.folder}: {wrong[0]} does not have the shape that config.json implies: fetch the "
                "checkpoint again"
            )
        return {name: stored[id(tensor)] for name, tensor in state.items()}

    def tensor(self, name: str) -> Tensor:
        """A tensor of the model in its number format, on the CPU."""
        return self.files.tensors[self.sources[name]].read().to(self.model.dtype)

    def device_of(self, block: int) -> torch.device:
        """The device that runs every block."""
        return self.device

    def weight(self, block: int, path: str) -> Tensor:
        """A projection's weight, shape `(rows, columns)`, loaded again at each call."""
        return self.tensor(f"{self.prefix}{block}.{path}.weight").to(self.device)

    def weight_rows(self, block: int, path: str) -> Iterator[Tensor]:
        """A projection's weight in parts of rows, on the CPU; each part is valid until the next is requested."""
        stored = self.files.tensors[self.sources[f"{self.prefix}{block}.{path}.weight"]]
        for rows in stored.parts(ROWS_AT_ONCE):
            yield rows.to(self.model.dtype)

    def bias(self, block: int, path: str) -> Tensor | None:
        """A projection's bias, shape `(rows,)`, loaded again at each call; None if it has none."""
        if super().bias(block, path) is None:
            return None
        return self.tensor(f"{self.prefix}{block}.{path}.bias").to(self.device)

    def block_state(self, block: int) -> dict[str, Tensor]:
        """A block's parameters by their names within the block, loaded again at each call."""
        names = self.blocks[block].state_dict()
        return {name: self.tensor(f"{self.prefix}{block}.{name}").to(self.device) for name in names}

    @contextmanager
    def loaded(self, block: int) -> Iterator[nn.Module]:
        """A block with its weights, for the duration of the `with` block."""
        module = self.blocks[block]
        empty = module.state_dict(keep_vars=True)
        module.load_state_dict(self.block_state(block), strict=True, assign=True)
        try:
            yield module
        finally:
            module.load_state_dict(empty, strict=True, assign=True)

    def entered(
        self, token_ids: Tensor, mask: Tensor | None = None, seen: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """As in `Decoder`: text runs through the embedding alone, images also through the vision encoder."""
        if seen:
            with self.seeing():
                return super().entered(token_ids, mask, seen)
        states = torch.cat(list(self.embed(token_ids)))
        return states, self.given(states, mask)

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Load the embedding, vision encoder and connector for the duration of the `with` block."""
        if not self.model.get_input_embeddings().weight.is_meta:  # nested in another such `with` block
            yield
            return
        empty = self.model.state_dict(keep_vars=True)
        ahead = {name: self.tensor(name).to(self.device) for name in self.ahead}
        self.model.load_state_dict(ahead, strict=False, assign=True)
        try:
            yield
        finally:
            self.model.load_state_dict({name: empty[name] for name in ahead}, strict=False, assign=True)

    @property
    def ahead(self) -> list[str]:
        """Names of the tensors of all modules before the first block."""
        inner, norm = f"{self.model.base_model_prefix}.", f"{self.family.decoder}.norm."
        names = (name for name in self.model.state_dict() if name.startswith(inner) and self.is_outside_blocks(name))
        return [name for name in names if not name.startswith(norm)]

    @contextmanager
    def _recorded(self) -> Iterator[list[InputRecorder]]:
        """As in `Decoder`, with the final norm replaced: its weights are not loaded, and its output is not used."""
        norm = self.body.norm
        self.body.norm = nn.Identity()
        try:
            with super()._recorded() as recorders:
                yield recorders
        finally:
            self.body.norm = norm

    def given(self, states: Tensor, mask: Tensor | None = None) -> list[dict[str, Any]]:
        """The arguments of each block besides hidden states: masks, positions, rotary angles.

        Args:
            states: hidden states in the shape of the blocks' inputs, `(samples, tokens, hidden)`.
            mask: true for tokens that count, `(samples, tokens)`; None if all count.
        """
        with self._recorded() as recorders:
            self.body(inputs_embeds=states, attention_mask=mask, use_cache=False)
        return [recorder.given for recorder in recorders]

    def embed(self, token_ids: Tensor) -> Iterator[Tensor]:
        """The input of the first block for each sample, shape `(1, tokens, hidden)`."""
        embedding = self.model.get_input_embeddings()
        empty = embedding.weight
        name = next(n for n, p in self.model.named_parameters() if p is empty)
        embedding.weight = nn.Parameter(self.tensor(name).to(self.device), requires_grad=False)
        try:
            for row in token_ids:
                yield embedding(row[None].to(self.device))
        finally:
            embedding.weight = empty
