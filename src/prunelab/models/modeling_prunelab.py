# Copyright the prunelab authors. Licensed under the Apache License, Version 2.0.
"""Decoders with blocks of different widths for transformers; this file is part of pruned checkpoints.

For each block, `config.per_layer_config` gives `num_attention_heads`, `num_key_value_heads`, `intermediate_size` and
whether `o_proj` and `down_proj` have a bias (`o_proj_bias`, `down_proj_bias`); in Gemma-2 also whether a linear map
follows the norm of the MLP (`mlp_map`) in place of removed blocks. The stock classes of transformers read one width for
all blocks; the classes in this file build the stock model and then resize each block. A block without attention keeps a
constant (the bias) in its place.
"""

import torch
import transformers
from torch import nn


class Projection(nn.Linear):
    """A linear layer that may have no columns, and then returns its bias."""

    def reset_parameters(self):
        if self.weight.numel():
            super().reset_parameters()
        elif self.bias is not None:
            nn.init.zeros_(self.bias)


class DroppedAttention(nn.Module):
    """An attention without heads: returns a constant.

    The cache must still count tokens, because models take the sequence length from one layer: it stores a single zero a
    token in place of keys and values.
    """

    def __init__(self, hidden_size, layer_idx, bias):
        super().__init__()
        self.layer_idx = layer_idx
        self.o_proj = Projection(0, hidden_size, bias=bias)

    def forward(self, hidden_states, past_key_values=None, **kwargs):
        batch, tokens, _ = hidden_states.shape
        if past_key_values is not None:
            nothing = hidden_states.new_zeros(batch, 1, tokens, 1)
            past_key_values.update(nothing, nothing, self.layer_idx)
        return self.o_proj(hidden_states[..., :0]), None


def with_map(norm, hidden_size, eps):
    """A norm of the same class followed by a linear map, the parameter `map`."""

    class MappedNorm(type(norm)):
        def __init__(self):
            super().__init__(hidden_size, eps=eps)
            self.map = nn.Parameter(torch.eye(hidden_size))

        def forward(self, x):
            return nn.functional.linear(super().forward(x), self.map)

    return MappedNorm()


def fit_widths(decoder, config):
    """Resize each block of a stock decoder to its widths in `config.per_layer_config`."""
    for index, block in enumerate(decoder.layers):
        widths, attention, mlp = config.per_layer_config[index], block.self_attn, block.mlp
        if widths.num_key_value_heads == 0:
            bias = widths.o_proj_bias or attention.o_proj.bias is not None
            block.self_attn = DroppedAttention(config.hidden_size, index, bias)
        else:
            heads = widths.num_attention_heads * attention.head_dim
            shared = widths.num_key_value_heads * attention.head_dim
            resize(attention, "q_proj", rows=heads)
            resize(attention, "k_proj", rows=shared)
            resize(attention, "v_proj", rows=shared)
            resize(attention, "o_proj", columns=heads, bias=widths.o_proj_bias)
        resize(mlp, "gate_proj", rows=widths.intermediate_size)
        resize(mlp, "up_proj", rows=widths.intermediate_size)
        resize(mlp, "down_proj", columns=widths.intermediate_size, bias=widths.down_proj_bias)
        mlp.intermediate_size = widths.intermediate_size
        if getattr(widths, "mlp_map", False):
            norm = block.post_feedforward_layernorm
            block.post_feedforward_layernorm = with_map(norm, config.hidden_size, config.rms_norm_eps)


def resize(module, name, rows=None, columns=None, bias=False):
    """Replace a projection by one of another size; an existing bias is kept."""
    old = getattr(module, name)
    rows = old.out_features if rows is None else rows
    columns = old.in_features if columns is None else columns
    bias = bias or old.bias is not None
    if (rows, columns, bias) != (old.out_features, old.in_features, old.bias is not None):
        setattr(module, name, Projection(columns, rows, bias=bias))


class PerBlockWidths:
    """A mix-in for a stock class: resizes each block of the model's decoder."""

    def __init__(self, config):
        super().__init__(config)
        fit_widths(self.get_decoder(), config.get_text_config())


def __getattr__(name):
    """`PrunedLlamaForCausalLM` is `LlamaForCausalLM` with widths per block; likewise for every class of transformers.

    Only the requested class is imported, and created once.
    """
    stock = getattr(transformers, name.removeprefix("Pruned"), None) if name.startswith("Pruned") else None
    if not isinstance(stock, type):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    pruned_class = type(
        name, (PerBlockWidths, stock), {"__module__": __name__, "__doc__": f"{stock.__name__} with widths per block."}
    )
    pruned_class.register_for_auto_class(
        "AutoModelForCausalLM" if name.endswith("ForCausalLM") else "AutoModelForImageTextToText"
    )
    globals()[name] = pruned_class
    return pruned_class
