"""Choose the llama.cpp architecture of a model, and its widths in the file.

Derived from llama.cpp's loaders and graphs (build 11549, `src/models/*.cpp`), and checked against torch by
`tests/checkpoint/test_export_llama_cpp.py`:

- `llama` and `qwen2` give all blocks one width; `llama` has optional biases everywhere, `qwen2` on query, key and value
  only, with an attention output of hidden x hidden. A Qwen2 that does not fit is written as a Llama with biases.
- `deci` reads heads, key-value heads and MLP width for each block. A block without heads passes its input on and
  ignores its bias, and cannot be the first block; a block without an MLP loses its attention too. In these cases the
  block keeps one unit of zeros.
- `gemma2` gives all blocks one width, and has neither biases nor a linear map after a norm; its attention scale follows
  from the sizes, so that the query weights are rescaled by the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunelab.errors import UnsupportedModel
from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

    from prunelab.models.families import BlockShape
    from prunelab.models.loading import LanguageModel

FAMILIES = ("llama", "mistral", "qwen2", "gemma2")
PROJECTIONS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""llama.cpp's names for the projections of a block."""
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_GEMMA2_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_OUTPUT_BIASES = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_GEMMA2_27B_BLOCKS = 46
"""llama.cpp identifies a Gemma-2 with this many blocks as the 27B model, and uses that model's attention scale."""


@dataclass(frozen=True)
class Layout:
    """The model as the GGUF file describes it.

    Attributes:
        architecture: llama.cpp's name of the architecture.
        shapes: widths of every block in the file, zero-filled units included.
        context_length: the most tokens for which llama.cpp and transformers compute the same.
        query_scale: factor of the query weights.
        frequency_factors: divisors of the rotary frequencies in llama.cpp, shape `(head_dim / 2,)`; None for ones.
        notes: notes for the user.
    """

    architecture: str
    shapes: tuple[BlockShape, ...]
    context_length: int
    query_scale: float = 1.0
    frequency_factors: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def rotates_neighbours(self) -> bool:
        """Whether llama.cpp rotates channels 0 and 1 together, where transformers rotates 0 and head_dim / 2."""
        return self.architecture in ("llama", "deci")


def layout_of(model: LanguageModel, *, channel_multiple: int = 1, pad_widths: bool = False) -> Layout:
    """The simplest llama.cpp architecture that computes the same as the model.

    Args:
        model: the model.
        channel_multiple: pad MLP widths with zeros to a multiple of this, as block-wise quantisation requires.
        pad_widths: pad every block with zeros to the widths of the widest block.

    Raises:
        UnsupportedModel: no llama.cpp architecture computes the same; names the reason and the remedy.
    """
    config, family = model.model.config, model.decoder.family.name
    check_structure(model)
    biases = used_biases(model)
    shapes = _multiples(_widest(model.decoder.shapes) if pad_widths else model.decoder.shapes, channel_multiple)
    if family == "gemma2":
        _check_gemma2(model, shapes, biases)
        return Layout("gemma2", shapes, model.context_length, query_scale=_gemma2_query_scale(config, shapes))
    factors = _frequency_factors(model)
    context, notes = _context(model)
    uniform = len(set(shapes)) == 1 and shapes[0].key_value_groups > 0 and shapes[0].channels > 0
    plain = not any(path in _OUTPUT_BIASES for _, path in biases) and factors is None
    square = all(s.key_value_groups * s.queries_per_group * s.head_dim == s.hidden for s in shapes)
    if family == "qwen2" and uniform and plain and square:
        return Layout("qwen2", shapes, context, notes=notes)
    if uniform:
        return Layout("llama", shapes, context, frequency_factors=factors, notes=notes)
    shapes = tuple(_never_misread(shape, block, biases, channel_multiple) for block, shape in enumerate(shapes))
    return Layout("deci", shapes, context, frequency_factors=factors, notes=notes)


def check_structure(model: LanguageModel) -> None:
    """Refuse a family, an activation or parts of blocks that are not written as GGUF; values are not looked at.

    Raises:
        UnsupportedModel: naming what has no counterpart.
    """
    family = model.decoder.family.name
    if family not in FAMILIES:
        listing = ", ".join(FAMILIES)
        raise UnsupportedModel(
            f"{model.name} is of family {family}, which cannot be exported to GGUF: export a model of {listing}, or "
            "the language model that `prunelab extract-language-model` takes from a vision-language model"
        )
    _check_activation(model.name, model.model.config, family)
    _check_places(model)


def used_biases(model: LanguageModel) -> Mapping[tuple[int, str], Tensor]:
    """Every projection bias with a nonzero value, by block and path; shapes `(rows,)`."""
    biases = {}
    for index, block in enumerate(model.decoder.blocks):
        for name, parameter in block.named_parameters():
            path, _, kind = name.rpartition(".")
            if kind == "bias" and bool(parameter.any()):
                biases[index, path] = parameter.detach()
    return biases


def norms_of(family: str) -> Mapping[str, str]:
    """llama.cpp's names for the norms of a block of this family."""
    return _GEMMA2_NORMS if family == "gemma2" else _NORMS


def _check_places(model: LanguageModel) -> None:
    """Refuse a model whose blocks have parameters that the GGUF architecture has no tensor for."""
    family = model.decoder.family.name
    placed = {f"{path}.weight" for path in (*PROJECTIONS, *norms_of(family))} | {f"{path}.bias" for path in PROJECTIONS}
    names = [
        (block, name) for block, module in enumerate(model.decoder.blocks) for name, _ in module.named_parameters()
    ]
    maps = [str(block) for block, name in names if name.endswith("norm.map")]
    if maps:
        raise UnsupportedModel(
            f"{model.name} has a linear map after a norm (block {', '.join(maps)}) in place of removed blocks, and "
            f"llama.cpp has no such tensor in a {family}: prune the dense model again with --compensation none, or "
            "with a method other than replaceme"
        )
    others = dict.fromkeys(name for _, name in names if name not in placed)
    if others:
        raise UnsupportedModel(
            f"{model.name} has {', '.join(others)} in its blocks, for which llama.cpp has no tensor in a {family}: "
            "export a model whose blocks have projections and norms only"
        )


def _widest(shapes: tuple[BlockShape, ...]) -> tuple[BlockShape, ...]:
    groups = max(shape.key_value_groups for shape in shapes)
    channels = max(shape.channels for shape in shapes)
    return tuple(replace(shape, key_value_groups=groups, channels=channels) for shape in shapes)


def _multiples(shapes: tuple[BlockShape, ...], multiple: int) -> tuple[BlockShape, ...]:
    return tuple(replace(shape, channels=-(-shape.channels // multiple) * multiple) for shape in shapes)


def _never_misread(
    shape: BlockShape, block: int, biases: Mapping[tuple[int, str], Tensor], multiple: int
) -> BlockShape:
    """Add one unit of zeros if `deci` would otherwise drop more than was removed."""
    groups = shape.key_value_groups
    if not groups and (block == 0 or (block, "self_attn.o_proj") in biases):
        groups = 1
    return replace(shape, key_value_groups=groups, channels=shape.channels or multiple)


def _check_activation(name: str, config: PreTrainedConfig, family: str) -> None:
    expected = "gelu_pytorch_tanh" if family == "gemma2" else "silu"
    given = config.hidden_activation if family == "gemma2" else config.hidden_act
    if given != expected:
        raise UnsupportedModel(
            f"{name} has the activation {given}, and llama.cpp computes {expected} in a {family}: serve this model "
            "with transformers"
        )


def _context(model: LanguageModel) -> tuple[int, tuple[str, ...]]:
    """The context in tokens, and notes: llama.cpp has no sliding-window attention in these architectures."""
    config = model.model.config
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = "sliding_attention" in kinds or (not kinds and getattr(config, "sliding_window", None))
    window = getattr(config, "sliding_window", None)
    if not windowed or window is None or window >= model.context_length:
        return model.context_length, ()
    note = f"llama.cpp has no sliding window in this architecture: the file's context is the window, {window} tokens"
    return int(window), (note,)


def _frequency_factors(model: LanguageModel) -> Tensor | None:
    """Divisors of the default rotary frequencies; llama.cpp reads such factors for `llama` and `deci`."""
    rotary = model.decoder.body.get_submodule("rotary_emb")
    kind = model.model.config.rope_parameters.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise UnsupportedModel(
            f"{model.name} has rotary positions of type {kind}, which depend on the text's length, and GGUF holds "
            "default, linear and llama3 positions only: serve this model with transformers"
        )
    head_dim = model.decoder.shapes[0].head_dim
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    plain = model.model.config.rope_parameters["rope_theta"] ** -exponents
    inverse: Tensor = rotary.get_buffer("inv_freq")
    factors = plain / inverse.cpu().double()
    return None if torch.allclose(factors, torch.ones_like(factors), rtol=1e-5) else factors


def _check_gemma2(
    model: LanguageModel, shapes: tuple[BlockShape, ...], biases: Mapping[tuple[int, str], Tensor]
) -> None:
    config = model.model.config
    if getattr(config, "use_bidirectional_attention", None):
        raise UnsupportedModel(
            f"{model.name} is a Gemma-2 with bidirectional attention, and llama.cpp computes causal attention only: "
            "export a model without use_bidirectional_attention"
        )
    if biases:
        raise UnsupportedModel(f"{model.name} is a Gemma-2 with {_whose(biases)}")
    if len(set(shapes)) > 1 or not shapes[0].key_value_groups or not shapes[0].channels:
        raise UnsupportedModel(
            f"{model.name} is a Gemma-2 with blocks of different widths, for which llama.cpp has no architecture: "
            "prune again with --uniform, or give --pad-widths, which pads every block with zeros to the widest block"
        )
    if config.attn_logit_softcapping is None or config.final_logit_softcapping is None:
        raise UnsupportedModel(
            f"{model.name} is a Gemma-2 without soft-capped logits, and llama.cpp always caps them: serve this model "
            "with transformers"
        )
    if config.rope_parameters.get("rope_type", "default") != "default":
        raise UnsupportedModel(
            f"{model.name} is a Gemma-2 with scaled rotary positions, which llama.cpp does not compute: serve this "
            "model with transformers"
        )


def _whose(biases: Mapping[tuple[int, str], Tensor]) -> str:
    """Describe the unsupported biases and the remedy: compensation adds biases to output projections only."""
    input_biases = sorted({path.rpartition(".")[2] for _, path in biases} - {"o_proj", "down_proj"})
    if input_biases:
        return (
            f"biases of the base model (on {', '.join(input_biases)}), for which llama.cpp has no tensor: serve this "
            "model with transformers"
        )
    return (
        "biases on its output projections, as compensation adds them, for which llama.cpp has no tensor: prune again "
        "with --compensation none"
    )


def _gemma2_query_scale(config: PreTrainedConfig, shapes: tuple[BlockShape, ...]) -> float:
    """The ratio of the attention scales of transformers and llama.cpp."""
    shape = shapes[0]
    heads = shape.key_value_groups * shape.queries_per_group
    theirs = shape.hidden // heads if len(shapes) == _GEMMA2_27B_BLOCKS else shape.head_dim
    return math.sqrt(theirs / config.query_pre_attn_scalar)
