"""Declaration of a model family: the names of its blocks, and the rows and columns of its prunable units.

A *unit* is the smallest structure that width pruning removes: a key-value group (one key-value head with all query
heads that share it) or an MLP channel. A unit owns rows of the projections that read the residual stream and columns of
the projection that writes to it. A family declares the rows by part, so that a fused projection needs one line and no
new code: `InputProjection("self_attn.qkv_proj", ("query", "key", "value"))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

ProjectionPart = Literal["query", "key", "value", "channel"]


@dataclass(frozen=True)
class BlockShape:
    """The widths of one decoder block.

    Attributes:
        hidden: width of the residual stream.
        key_value_groups: key-value heads, each with its query heads; 0 if the attention was removed.
        queries_per_group: query heads that share one key-value head.
        head_dim: channels of one head.
        channels: intermediate channels of the MLP; 0 if all were removed.
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
        """Projection weights of the block, without norms and biases."""
        return self.key_value_groups * self.group_cost + self.channels * self.channel_cost

    def rows(self, part: ProjectionPart) -> int:
        """Rows that one unit owns in this part of a projection."""
        sizes = {"query": self.queries_per_group * self.head_dim, "channel": 1}
        return sizes.get(part, self.head_dim)

    def units(self, part: ProjectionPart) -> int:
        """Number of units in this part of a projection."""
        return self.channels if part == "channel" else self.key_value_groups


@dataclass(frozen=True)
class InputProjection:
    """A projection that reads the residual stream; its rows are the rows of its parts, concatenated."""

    path: str
    parts: tuple[ProjectionPart, ...]


@dataclass(frozen=True)
class UnitLayout:
    """The location of the units of one kind inside a block.

    Attributes:
        unit: name of the kind of unit.
        input_projections: projections whose rows the units own.
        output_projection: path of the projection whose columns the units own.
        part: the part whose rows have the same layout as the columns of the output projection.
    """

    unit: Literal["key_value_group", "channel"]
    input_projections: tuple[InputProjection, ...]
    output_projection: str
    part: ProjectionPart

    @property
    def module(self) -> str:
        """Path of the module in a block that holds the projections, such as `self_attn`."""
        return self.output_projection.rpartition(".")[0]

    def rows(self, projection: InputProjection, shape: BlockShape, kept: Sequence[int]) -> Tensor:
        """Indices of the kept units' rows in `projection`, shape `(rows,)`, in ascending order of part and unit."""
        offset, pieces = 0, []
        for part in projection.parts:
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
    input_projections=(
        InputProjection("self_attn.q_proj", ("query",)),
        InputProjection("self_attn.k_proj", ("key",)),
        InputProjection("self_attn.v_proj", ("value",)),
    ),
    output_projection="self_attn.o_proj",
    part="query",
)
LLAMA_MLP = UnitLayout(
    unit="channel",
    input_projections=(InputProjection("mlp.gate_proj", ("channel",)), InputProjection("mlp.up_proj", ("channel",))),
    output_projection="mlp.down_proj",
    part="channel",
)


@dataclass(frozen=True)
class ModelFamily:
    """One architecture, declared by names.

    Attributes:
        name: the family's name for users.
        stock_class: the transformers class that builds the model.
        decoder: dotted path from the model to the module that holds the blocks and the final norm.
        blocks: name of the list of blocks in the decoder.
        attention: location of the key-value groups in a block.
        mlp: location of the channels in a block.
        bias_switches: for an output projection, the config switch that gives it a bias in the stock class.
        output_norms: for an output projection, the norm between its output and the residual stream.
        per_layer_lists: config attributes with one entry a block.
        needs_start_token: whether the model is unusable without its start token before every window (Gemma).
        llama_unless: config field that must be unset for the model to be equivalent to a Llama with biases on every
            projection; such a model is saved as a Llama if its own class does not support the biases it needs.
        auto_class: the transformers auto class that loads a checkpoint of the stock class.
        language_family: for a vision-language model, the family of its language model; None for a language model.
    """

    name: str
    stock_class: str
    decoder: str = "model"
    blocks: str = "layers"
    attention: UnitLayout = LLAMA_ATTENTION
    mlp: UnitLayout = LLAMA_MLP
    bias_switches: Mapping[str, str] | None = None
    output_norms: Mapping[str, str] | None = None
    per_layer_lists: tuple[str, ...] = ("layer_types",)
    needs_start_token: bool = False
    llama_unless: str | None = None
    auto_class: str = "AutoModelForCausalLM"
    language_family: str | None = None

    @property
    def mixed_class(self) -> str:
        """prunelab's class for blocks of different widths, which `modeling_prunelab` derives from the stock class."""
        return f"Pruned{self.stock_class}"

    @property
    def architectures(self) -> tuple[str, str]:
        """The class names in `config.json` that the family covers."""
        return self.stock_class, self.mixed_class

    @property
    def is_multimodal(self) -> bool:
        """Whether the model is a vision-language model."""
        return self.language_family is not None

    def inside(self, name: str, stock_class: str, decoder: str) -> ModelFamily:
        """The family of vision-language models with a language model of this family; only the latter is pruned.

        Args:
            name: the family's name for users.
            stock_class: the transformers class that builds the vision-language model.
            decoder: dotted path to the module that holds the language model's blocks and final norm.
        """
        return replace(
            self,
            name=name,
            stock_class=stock_class,
            decoder=decoder,
            llama_unless=None,  # another language-model class would need another vision-language class
            auto_class="AutoModelForImageTextToText",
            language_family=self.name,
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

    def residual_output(self, output_projection: str) -> str:
        """Path of the module whose output is added to the residual stream: the projection, or the norm after it."""
        return (self.output_norms or {}).get(output_projection, output_projection)

    def layouts(self) -> tuple[UnitLayout, UnitLayout]:
        """The layouts of key-value groups and of channels."""
        return self.attention, self.mlp
