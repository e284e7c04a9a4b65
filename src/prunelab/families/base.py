"""What a model family is: where blocks, key-value groups and MLP channels live, declared by name.

A *unit* is what width pruning removes whole: a key-value group (one key-value head with all query heads that share
it) or an MLP channel. A unit owns rows of the projections that read the residual stream and columns of the one that
writes to it. A family declares those rows by part, so that a fused projection is one more line and no new code:
`Reader("self_attn.qkv_proj", ("query", "key", "value"))`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

Part = Literal["query", "key", "value", "channel"]
ROWS_AT_ONCE = 256
"""Rows of a large model's projections that stay in a processor's cache while something is done with them."""


@dataclass(frozen=True)
class BlockShape:
    """The widths of one decoder block.

    Attributes:
        hidden: width of the residual stream.
        key_value_groups: key-value heads, each with its query heads; 0 where the attention was dropped.
        queries_per_group: query heads that share one key-value head.
        head_dim: channels of one head.
        channels: intermediate channels of the MLP; 0 where all were removed.
    """

    hidden: int
    key_value_groups: int
    queries_per_group: int
    head_dim: int
    channels: int

    @property
    def group_cost(self) -> int:
        """Projection weights that one key-value group holds: query, key, value and output."""
        return 2 * self.head_dim * (self.queries_per_group + 1) * self.hidden

    @property
    def channel_cost(self) -> int:
        """Projection weights that one MLP channel holds: gate, up and down."""
        return 3 * self.hidden

    @property
    def cost(self) -> int:
        """Projection weights of the whole block; norms and biases are not counted."""
        return self.key_value_groups * self.group_cost + self.channels * self.channel_cost

    def rows(self, part: Part) -> int:
        """Rows that one unit owns in a projection's part."""
        sizes = {"query": self.queries_per_group * self.head_dim, "channel": 1}
        return sizes.get(part, self.head_dim)

    def units(self, part: Part) -> int:
        """How many units the part is made of."""
        return self.channels if part == "channel" else self.key_value_groups


@dataclass(frozen=True)
class Reader:
    """A projection from the residual stream; its rows are the parts' rows, one part after the other."""

    path: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class UnitLayout:
    """Where the units of one kind live inside a block.

    Attributes:
        unit: what the units are called.
        readers: projections whose rows the units own.
        writer: path of the output projection; the units own its input columns.
        part: the part whose rows are laid out as the writer's columns are.
    """

    unit: Literal["key_value_group", "channel"]
    readers: tuple[Reader, ...]
    writer: str
    part: Part

    def rows(self, reader: Reader, shape: BlockShape, kept: Sequence[int]) -> Tensor:
        """Indices of the kept units' rows in `reader`, shape `(rows,)`, in ascending order of part and unit."""
        offset, pieces = 0, []
        for part in reader.parts:
            pieces.append(_expand(kept, shape.rows(part)) + offset)
            offset += shape.units(part) * shape.rows(part)
        return torch.cat(pieces)

    def columns(self, shape: BlockShape, kept: Sequence[int]) -> Tensor:
        """Indices of the kept units' columns in the output projection, shape `(columns,)`."""
        return _expand(kept, shape.rows(self.part))


def _expand(units: Sequence[int], size: int) -> Tensor:
    start = torch.tensor(list(units), dtype=torch.long)[:, None] * size
    return (start + torch.arange(size)).flatten()


LLAMA_ATTENTION = UnitLayout(
    unit="key_value_group",
    readers=(
        Reader("self_attn.q_proj", ("query",)),
        Reader("self_attn.k_proj", ("key",)),
        Reader("self_attn.v_proj", ("value",)),
    ),
    writer="self_attn.o_proj",
    part="query",
)
LLAMA_MLP = UnitLayout(
    unit="channel",
    readers=(Reader("mlp.gate_proj", ("channel",)), Reader("mlp.up_proj", ("channel",))),
    writer="mlp.down_proj",
    part="channel",
)


@dataclass(frozen=True)
class ModelFamily:
    """One architecture, declared by names.

    Attributes:
        name: what the user calls it.
        architectures: class names in `config.json` that it covers, prunelab's own mixed-width classes among them.
        stock_class: the transformers class that builds it.
        mixed_class: prunelab's class for layers of different widths, in `checkpoint/modeling_prunelab.py`.
        decoder: dotted path from the model to the module that holds the blocks and the final norm.
        blocks: name of the list of blocks in the decoder.
        attention: where key-value groups live in a block.
        mlp: where channels live in a block.
        bias_switches: for an output projection, the config switch that gives it a bias in the stock class.
        writer_norms: for an output projection, the norm that its output passes before it joins the residual stream.
        per_layer_lists: config attributes with one entry a block.
        needs_start_token: the model is unusable without its start token in front of every window (Gemma).
        llama_unless: the config field that must be unset for the model to compute what a Llama with biases on every
            projection computes; such a model can be saved as that Llama where its own class has no slot for a bias.
        auto_class: the transformers class that finds the stock class for a checkpoint.
        language_family: of a model that sees, the family of its language model; None for a language model.
        stored_as_named: whether a checkpoint's tensors have the names that they have in the model.
    """

    name: str
    architectures: tuple[str, ...]
    stock_class: str
    mixed_class: str
    decoder: str = "model"
    blocks: str = "layers"
    attention: UnitLayout = LLAMA_ATTENTION
    mlp: UnitLayout = LLAMA_MLP
    bias_switches: Mapping[str, str] | None = None
    writer_norms: Mapping[str, str] | None = None
    per_layer_lists: tuple[str, ...] = ("layer_types",)
    needs_start_token: bool = False
    llama_unless: str | None = None
    auto_class: str = "AutoModelForCausalLM"
    language_family: str | None = None
    stored_as_named: bool = True

    @property
    def sees(self) -> bool:
        """Whether images are part of its input."""
        return self.language_family is not None

    def inside(self, name: str, stock_class: str, decoder: str, stored_as_named: bool = True) -> ModelFamily:
        """The family of models that see and think with a language model of this one; the other parts stay whole.

        Args:
            name: what the user calls it.
            stock_class: the transformers class that builds it.
            decoder: where the language model's blocks and final norm are in it.
            stored_as_named: whether a checkpoint's tensors have the names that they have in the model.
        """
        return replace(
            self,
            name=name,
            architectures=(stock_class, f"Pruned{stock_class}"),
            stock_class=stock_class,
            mixed_class=f"Pruned{stock_class}",
            decoder=decoder,
            llama_unless=None,  # a language model of another class would be a model that sees of another class as well
            auto_class="AutoModelForImageTextToText",
            language_family=self.name,
            stored_as_named=stored_as_named,
        )

    def shapes(self, config: PreTrainedConfig) -> tuple[BlockShape, ...]:
        """The widths of every block, read from the config alone."""
        text = config.get_text_config()
        layers = text.per_layer_config
        with_groups = next((c for c in layers if c.num_key_value_heads), None)
        ratio = with_groups.num_attention_heads // with_groups.num_key_value_heads if with_groups else 1
        head_dim = getattr(text, "head_dim", None)
        return tuple(
            BlockShape(
                hidden=layer.hidden_size,
                key_value_groups=layer.num_key_value_heads,
                queries_per_group=ratio,
                head_dim=head_dim or layer.hidden_size // layer.num_attention_heads,
                channels=layer.intermediate_size,
            )
            for layer in layers
        )

    def adder(self, writer: str) -> str:
        """The module whose output joins the residual stream: the output projection, or the norm behind it."""
        return (self.writer_norms or {}).get(writer, writer)

    def layouts(self) -> tuple[UnitLayout, UnitLayout]:
        """The layouts of key-value groups and of channels."""
        return self.attention, self.mlp


class Recorder(nn.Module):
    """Stands in a block's place, passes the hidden states on and keeps what else the block would have been given."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.empty(0)
        self.given: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, **given: Any) -> Tensor:
        """The hidden states as they came."""
        self.hidden, self.given = hidden_states, given
        return hidden_states


class Decoder:
    """A loaded model seen through its family: its blocks, their shapes and their projections.

    Args:
        model: a transformers model; the decoder may sit inside a larger one.
        family: how to find things in it.
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
            token_ids: on the model's device.
            mask: true where a token counts; None where all do.
            seen: the pixels of a model that sees, for the places in which its image tokens stand.
        """
        body: Any = self.model.base_model if seen else self.body
        moved = {name: tensor.to(token_ids.device) for name, tensor in (seen or {}).items()}
        states: Tensor = body(input_ids=token_ids, attention_mask=mask, use_cache=False, **moved).last_hidden_state
        return states

    def predicting(self, token_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens whose prediction means something, shape `(rows, tokens)`.

        All that count, but those before a place of an image's features: no model is taught to say anything there.

        Args:
            token_ids: shape `(rows, tokens)`.
            mask: true where a token counts; None where all do.
        """
        image = getattr(self.model.config, "image_token_id", None)
        chosen = torch.ones_like(token_ids, dtype=torch.bool) if mask is None else mask.bool().clone()
        if image is not None:
            chosen[:, :-1] &= token_ids[:, 1:] != image
        return chosen

    def entered(
        self, token_ids: Tensor, mask: Tensor | None = None, seen: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Hidden states before the first block, and what the stock code gives each block besides; as `run` takes."""
        with self._recorded() as recorders:
            self.run(token_ids, mask, seen)
        return recorders[0].hidden, [recorder.given for recorder in recorders]

    @contextmanager
    def _recorded(self) -> Iterator[list[Recorder]]:
        """Recorders in the blocks' places, for as long as the `with` lasts."""
        own, recorders = self.blocks, [Recorder() for _ in self.shapes]
        setattr(self.body, self.family.blocks, nn.ModuleList(recorders))
        try:
            yield recorders
        finally:
            setattr(self.body, self.family.blocks, own)

    @contextmanager
    def loaded(self, block: int) -> Iterator[nn.Module]:
        """A block with its values, for as long as the `with` lasts."""
        yield self.blocks[block]

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks in order."""
        blocks: nn.ModuleList = getattr(self.body, self.family.blocks)
        return blocks

    @property
    def prefix(self) -> str:
        """What every block's tensor names begin with, up to the block's number."""
        return f"{self.family.decoder}.{self.family.blocks}."

    def device_of(self, block: int) -> torch.device:
        """Where a block is run."""
        return next(self.blocks[block].parameters()).device

    def weight(self, block: int, path: str) -> Tensor:
        """A projection's weight, shape `(rows, columns)`, on the model's device and in its dtype."""
        return self.blocks[block].get_parameter(f"{path}.weight").detach()

    def weight_rows(self, block: int, path: str) -> Iterator[Tensor]:
        """A projection's weight, `ROWS_AT_ONCE` rows after the other: each is good until the next is asked for.

        What is made of whole columns is made of them many times faster so, most of all in half precision.
        """
        yield from self.weight(block, path).split(ROWS_AT_ONCE)

    def bias(self, block: int, path: str) -> Tensor | None:
        """A projection's bias, shape `(rows,)`; None where it has none."""
        bias = self.blocks[block].get_submodule(path).bias
        return bias.detach() if isinstance(bias, Tensor) else None

    def map_behind(self, block: int, norm: str) -> Tensor | None:
        """The linear map behind a norm of a block, shape `(hidden, hidden)`; None where there is none."""
        found = getattr(self.blocks[block].get_submodule(norm), "map", None)
        return found.detach() if isinstance(found, Tensor) else None

    def block_state(self, block: int) -> dict[str, Tensor]:
        """A block's parameters by their names within the block, on the model's device."""
        state: dict[str, Tensor] = self.blocks[block].state_dict()
        return state

    def is_outside(self, name: str) -> bool:
        """Whether a tensor of the model so called belongs to no block."""
        return not name.startswith(self.prefix)

    def writers(self) -> Iterator[tuple[int, UnitLayout, nn.Module]]:
        """Every output projection that has columns: its block, its layout and the module."""
        for index, (block, shape) in enumerate(zip(self.blocks, self.shapes, strict=True)):
            for layout in self.family.layouts():
                if shape.units(layout.part):
                    yield index, layout, block.get_submodule(layout.writer)

    @property
    def parameters(self) -> int:
        """All parameters of the model, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def cost(self) -> int:
        """Projection weights of all blocks: what a ratio is a share of."""
        return sum(shape.cost for shape in self.shapes)
