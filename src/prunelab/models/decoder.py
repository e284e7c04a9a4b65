"""The decoder of a loaded model, accessed by its family's names: run it, and read its blocks and projections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunelab.models.input_recorder import InputRecorder
    from prunelab.models.layout import ModelFamily, UnitLayout

ROWS_AT_ONCE = 256
"""Rows of a large model's projection that fit a CPU's cache."""


class Decoder:
    """The decoder of a loaded model: its blocks, their shapes and their projections.

    Args:
        model: a transformers model, whose decoder may be a part of it.
        family: the family that names the parts of the model.
    """

    def __init__(self, model: PreTrainedModel, family: ModelFamily) -> None:
        self.model = model
        self.family = family
        self.shapes = family.shapes(model.config)

    @cached_property
    def body(self) -> nn.Module:
        """The module that turns token ids into final hidden states."""
        body: nn.Module = attrgetter(self.family.decoder)(self.model)
        return body

    def run(self, token_ids: Tensor, mask: Tensor | None = None, seen: Mapping[str, Tensor] | None = None) -> Tensor:
        """Final hidden states, shape `(rows, tokens, hidden)`, of tokens of shape `(rows, tokens)`.

        Args:
            token_ids: token ids on the model's device.
            mask: true for tokens that count; None if all count.
            seen: pixel inputs of a vision-language model, for the positions of its image tokens.
        """
        body: Any = self.model.base_model if seen else self.body
        moved = {name: tensor.to(token_ids.device) for name, tensor in (seen or {}).items()}
        states: Tensor = body(input_ids=token_ids, attention_mask=mask, use_cache=False, **moved).last_hidden_state
        return states

    def loss_mask(self, token_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens whose next-token prediction enters the loss, shape `(rows, tokens)`.

        All tokens that count, except those before an image token: no model is trained to predict image tokens.

        Args:
            token_ids: shape `(rows, tokens)`.
            mask: true for tokens that count; None if all count.
        """
        image = getattr(self.model.config, "image_token_id", None)
        chosen = torch.ones_like(token_ids, dtype=torch.bool) if mask is None else mask.bool().clone()
        if image is not None:
            chosen[:, :-1] &= token_ids[:, 1:] != image
        return chosen

    def entered(
        self, token_ids: Tensor, mask: Tensor | None = None, seen: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Hidden states before the first block, and the other arguments that the stock code passes to each block.

        Args:
            token_ids: token ids on the model's device, shape `(rows, tokens)`.
            mask: true for tokens that count; None if all count.
            seen: pixel inputs of a vision-language model.

        Returns:
            The hidden states, shape `(rows, tokens, hidden)`, and keyword arguments for each block.
        """
        with self._recorded() as recorders:
            self.run(token_ids, mask, seen)
        return recorders[0].hidden, [recorder.given for recorder in recorders]

    @contextmanager
    def _recorded(self) -> Iterator[list[InputRecorder]]:
        """Replace the blocks by recorders for the duration of the `with` block."""
        from prunelab.models.input_recorder import InputRecorder

        blocks, recorders = self.blocks, [InputRecorder() for _ in self.shapes]
        setattr(self.body, self.family.blocks, nn.ModuleList(recorders))
        try:
            yield recorders
        finally:
            setattr(self.body, self.family.blocks, blocks)

    @contextmanager
    def loaded(self, block: int) -> Iterator[nn.Module]:
        """A block with its weights, for the duration of the `with` block."""
        yield self.blocks[block]

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks in order."""
        blocks: nn.ModuleList = getattr(self.body, self.family.blocks)
        return blocks

    @property
    def prefix(self) -> str:
        """The prefix of all tensor names in blocks, up to the block's number."""
        return f"{self.family.decoder}.{self.family.blocks}."

    def device_of(self, block: int) -> torch.device:
        """The device that runs a block."""
        return next(self.blocks[block].parameters()).device

    def weight(self, block: int, path: str) -> Tensor:
        """A projection's weight, shape `(rows, columns)`, on the model's device and in its dtype."""
        return self.blocks[block].get_parameter(f"{path}.weight").detach()

    def weight_rows(self, block: int, path: str) -> Iterator[Tensor]:
        """A projection's weight in parts of `ROWS_AT_ONCE` rows; each part is valid until the next is requested.

        Column-wise reductions are several times faster on such parts, most of all in half precision.
        """
        yield from self.weight(block, path).split(ROWS_AT_ONCE)

    def bias(self, block: int, path: str) -> Tensor | None:
        """A projection's bias, shape `(rows,)`; None if it has none."""
        bias = self.blocks[block].get_submodule(path).bias
        return bias.detach() if isinstance(bias, torch.Tensor) else None

    def map_behind(self, block: int, norm: str) -> Tensor | None:
        """The linear map after a norm of a block, shape `(hidden, hidden)`; None if there is none."""
        linear_map = getattr(self.blocks[block].get_submodule(norm), "map", None)
        return linear_map.detach() if isinstance(linear_map, torch.Tensor) else None

    def block_state(self, block: int) -> dict[str, Tensor]:
        """A block's parameters by their names within the block, on the model's device."""
        state: dict[str, Tensor] = self.blocks[block].state_dict()
        return state

    def is_outside_blocks(self, name: str) -> bool:
        """Whether the tensor with this name belongs to no block."""
        return not name.startswith(self.prefix)

    def writers(self) -> Iterator[tuple[int, UnitLayout, nn.Module]]:
        """Every output projection that has columns: its block, its layout and the module."""
        for index, (block, shape) in enumerate(zip(self.blocks, self.shapes, strict=True)):
            for layout in self.family.layouts():
                if shape.units(layout.part):
                    yield index, layout, block.get_submodule(layout.output_projection)

    @property
    def parameters(self) -> int:
        """All parameters of the model, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def cost(self) -> int:
        """Projection weights of all blocks: the denominator of pruning ratios."""
        return sum(shape.cost for shape in self.shapes)
