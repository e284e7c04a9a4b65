"""Which llama.cpp architecture holds a model, and with which widths.

Read from llama.cpp's loaders and graphs (build 11549, `src/models/*.cpp`), and checked against torch by
`tests/test_export_llama_cpp.py`:

- `llama` and `qwen2` give all blocks one width; `llama` has optional biases everywhere, `qwen2` on query, key and value
  only, with an attention output of hidden x hidden. A Qwen2 that does not fit is a Llama with biases.
- `deci` reads heads, key-value heads and MLP width for each block. A block without heads passes its input on and
  forgets a bias, and cannot be the first; a block without an MLP loses its attention too. Where that would go wrong,
  the block keeps one unit of zeros.
- `gemma2` gives all blocks one width and has no biases, nor a linear map behind a norm; its attention scale follows
  from the sizes, so that the query weights carry the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunelab.errors import UnsupportedModel

if TYPE_CHECKING:
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
"""llama.cpp takes a Gemma-2 with so many blocks for the 27B model, and scales its attention as that one's."""


@dataclass(frozen=True)
class Layout:
    """How llama.cpp will hold the model.

    Attributes:
        architecture: llama.cpp's name for it.
        shapes: widths of every block in the file, zero-filled units among them.
        context_length: tokens for which llama.cpp computes what transformers does.
        query_scale: what the query weights are multiplied by.
        frequency_factors: what llama.cpp divides the rotary frequencies by, shape `(head_dim / 2,)`; None for ones.
        notes: what the user should know.
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
    """The simplest architecture of llama.cpp that computes what the model computes.

    Args:
        model: the model.
        channel_multiple: fill MLP widths with zeros up to a multiple of this, as blocks of quantised numbers need.
        pad_widths: fill every block with zeros up to the widest one's widths.

    Raises:
        UnsupportedModel: llama.cpp has no architecture that computes the same; says why, and what to do.
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
        raise UnsupportedModel(
            f"{model.name} is of family {family}, which is not written as GGUF: {', '.join(FAMILIES)} are, also "
            "those that `prunelab extract-language-model` takes out of a model that sees"
        )
    _check_activation(model.name, model.model.config, family)
    _check_places(model)


def used_biases(model: LanguageModel) -> Mapping[tuple[int, str], Tensor]:
    """Every projection bias that is not all zeros, by block and path; shapes `(rows,)`."""
    found = {}
    for index, block in enumerate(model.decoder.blocks):
        for name, parameter in block.named_parameters():
            path, _, kind = name.rpartition(".")
            if kind == "bias" and bool(parameter.any()):
                found[index, path] = parameter.detach()
    return found


def norms_of(family: str) -> Mapping[str, str]:
    """llama.cpp's names for the norms of a block of this family."""
    return _GEMMA2_NORMS if family == "gemma2" else _NORMS


def _check_places(model: LanguageModel) -> None:
    """Refuse a model of whose blocks the file would lack a part."""
    family = model.decoder.family.name
    placed = {f"{path}.weight" for path in (*PROJECTIONS, *norms_of(family))} | {f"{path}.bias" for path in PROJECTIONS}
    names = [(block, name) for block, own in enumerate(model.decoder.blocks) for name, _ in own.named_parameters()]
    maps = [str(block) for block, name in names if name.endswith("norm.map")]
    if maps:
        raise UnsupportedModel(
            f"{model.name} has a linear map behind a norm (block {', '.join(maps)}) in place of removed blocks, and "
            f"llama.cpp has no such tensor in a {family}: prune the whole model again with --compensation none, or by "
            "another method than replaceme"
        )
    others = dict.fromkeys(name for _, name in names if name not in placed)
    if others:
        raise UnsupportedModel(
            f"{model.name} has in its blocks {', '.join(others)}, for which llama.cpp has no place in a {family}: "
            "export a model whose blocks hold projections and norms alone"
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
    """One unit of zeros where `deci` would drop more than is gone."""
    groups = shape.key_value_groups
    if not groups and (block == 0 or (block, "self_attn.o_proj") in biases):
        groups = 1
    return replace(shape, key_value_groups=groups, channels=shape.channels or multiple)


def _check_activation(name: str, config: PreTrainedConfig, family: str) -> None:
    expected = "gelu_pytorch_tanh" if family == "gemma2" else "silu"
    given = config.hidden_activation if family == "gemma2" else config.hidden_act
    if given != expected:
        raise UnsupportedModel(
            f"{name} has the activation {given}, and llama.cpp computes {expected} in a {family}: it has no "
            "architecture for this model"
        )


def _context(model: LanguageModel) -> tuple[int, tuple[str, ...]]:
    """How many tokens llama.cpp may see: it knows no attention windows in these architectures."""
    config = model.model.config
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = "sliding_attention" in kinds or (not kinds and getattr(config, "sliding_window", None))
    window = getattr(config, "sliding_window", None)
    if not windowed or window is None or window >= model.context_length:
        return model.context_length, ()
    note = f"llama.cpp knows no attention window here: the file's context is the window, {window} tokens"
    return int(window), (note,)


def _frequency_factors(model: LanguageModel) -> Tensor | None:
    """What the plain rotary frequencies are divided by; llama.cpp takes such factors for `llama` and `deci`."""
    rotary = model.decoder.body.get_submodule("rotary_emb")
    kind = model.model.config.rope_parameters.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise UnsupportedModel(
            f"{model.name} stretches its positions by {kind}, which depends on the text's length; GGUF is written for "
            "default, linear and llama3 positions"
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
            f"{model.name} is a Gemma-2 that attends in both directions, and llama.cpp computes causal attention "
            "alone: export one without use_bidirectional_attention"
        )
    if biases:
        raise UnsupportedModel(f"{model.name} is a Gemma-2 with {_whose(biases)}")
    if len(set(shapes)) > 1 or not shapes[0].key_value_groups or not shapes[0].channels:
        raise UnsupportedModel(
            f"{model.name} is a Gemma-2 whose blocks have widths of their own, for which llama.cpp has no "
            "architecture: prune again with --uniform, or give --pad-widths, which fills every block with zeros up to "
            "the widest one's size"
        )
    if config.attn_logit_softcapping is None or config.final_logit_softcapping is None:
        raise UnsupportedModel(f"{model.name} is a Gemma-2 without soft-capped logits, and llama.cpp always caps them")
    if config.rope_parameters.get("rope_type", "default") != "default":
        raise UnsupportedModel(f"{model.name} is a Gemma-2 with stretched positions, which llama.cpp does not compute")


def _whose(biases: Mapping[tuple[int, str], Tensor]) -> str:
    """The biases that are in the way, and the remedy: compensation leaves them on output projections alone."""
    own = sorted({path.rpartition(".")[2] for _, path in biases} - {"o_proj", "down_proj"})
    if own:
        return (
            f"biases of the base model's own (on {', '.join(own)}), for which llama.cpp has no place, and every cut "
            "keeps them: serve it with transformers"
        )
    return (
        "biases on its output projections, as compensation leaves them, for which llama.cpp has no place: prune again "
        "with --compensation none"
    )


def _gemma2_query_scale(config: PreTrainedConfig, shapes: tuple[BlockShape, ...]) -> float:
    """The scale of transformers over that of llama.cpp."""
    shape = shapes[0]
    heads = shape.key_value_groups * shape.queries_per_group
    theirs = shape.hidden // heads if len(shapes) == _GEMMA2_27B_BLOCKS else shape.head_dim
    return math.sqrt(theirs / config.query_pre_attn_scalar)
