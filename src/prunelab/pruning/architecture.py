"""The transformers class and the config of a pruned model.

A stock class is used wherever possible: after depth pruning, and where all blocks have one width that the class accepts
and a slot for every bias. A Qwen2 or Mistral model that needs a bias is saved as the equivalent Llama. Other models are
saved with transformers' `per_layer_config` and one small modelling file inside the checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import transformers
from prunelab.models.families import BlockShape, Decoder, ModelFamily, families
from prunelab.pruning.allocation import KeptUnits

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# The config fields that a Llama shares with the families it can represent.
_LLAMA_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "rope_parameters",
    "attention_dropout", "dtype",
)  # fmt: skip
_PER_LAYER = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "o_proj_bias", "down_proj_bias")
_BIAS_SWITCH = {"self_attn.o_proj": "o_proj_bias", "mlp.down_proj": "down_proj_bias"}


@dataclass(frozen=True)
class TargetArchitecture:
    """Class, config and family of a pruned model.

    Attributes:
        model_class: class that builds the model.
        config: its config.
        family: its family, which may differ from the dense model's.
        stock: whether the family's auto class loads the checkpoint without the modelling file.
    """

    model_class: Any
    config: PreTrainedConfig
    family: ModelFamily
    stock: bool

    def biases(self, decoder: Decoder, kept: KeptUnits) -> Iterator[tuple[str, int]]:
        """Names and sizes of all projection biases of the architecture; biases that the dense model lacks are zero."""
        shapes = kept.shapes(decoder.shapes)
        config = self.config.get_text_config()
        for position, shape in enumerate(shapes):
            layer = config.per_layer_config[position]
            for layout in self.family.layouts():
                name = f"{decoder.prefix}{position}."
                switch = (self.family.bias_switches or {}).get(layout.output_projection)
                everywhere = self.stock and switch is not None and getattr(config, switch)
                if everywhere or getattr(layer, _BIAS_SWITCH[layout.output_projection], False):
                    yield f"{name}{layout.output_projection}.bias", shape.hidden
                if everywhere:
                    for projection in layout.input_projections:
                        rows = sum(shape.units(part) * shape.rows(part) for part in projection.parts)
                        yield f"{name}{projection.path}.bias", rows


def choose_architecture(
    config: PreTrainedConfig,
    family: ModelFamily,
    kept: KeptUnits,
    biased: Sequence[frozenset[str]],
    mapped: frozenset[int] = frozenset(),
) -> TargetArchitecture:
    """The simplest architecture that can hold the kept units.

    Args:
        config: the dense model's config.
        family: its family.
        kept: the kept units.
        biased: for each kept block, the output projections that get a bias.
        mapped: blocks of the dense model that get a linear map after the norm of their MLP.
    """
    text = config.get_text_config()
    form = _text_form(text, family, kept, biased, mapped)
    return form if text is config else replace(form, config=_around(config, form.config))


def _around(config: PreTrainedConfig, text: PreTrainedConfig) -> PreTrainedConfig:
    """The config of a vision-language model with a new config for its language model."""
    config_copy = copy.deepcopy(config)
    for name in ("architectures", "auto_map"):
        if getattr(config_copy, name, None) is not None:
            setattr(config_copy, name, None)
    config_copy.text_config = text
    return config_copy


def _text_form(
    config: PreTrainedConfig,
    family: ModelFamily,
    kept: KeptUnits,
    biased: Sequence[frozenset[str]],
    mapped: frozenset[int],
) -> TargetArchitecture:
    """Architecture of a language model, or of the language model inside a vision-language model, from its config."""
    fields = _cut_fields(config, family, kept)
    had_biases = [_biases_of(config.per_layer_config[block]) for block in kept.blocks]
    needed = [a | b for a, b in zip(biased, had_biases, strict=True)]
    shapes = kept.shapes(family.shapes(config))
    maps = [block in mapped or getattr(config.per_layer_config[block], "mlp_map", False) for block in kept.blocks]
    stock = None
    if not any(maps):
        stock = _stock_form(type(config), fields, family, shapes, needed) or _llama_form(fields, family, shapes, needed)
    return stock or _per_layer(type(config), fields, family, shapes, needed, maps)


def _biases_of(layer: PreTrainedConfig) -> frozenset[str]:
    """Output projections to which an earlier pruning gave a bias."""
    return frozenset(path for path, switch in _BIAS_SWITCH.items() if getattr(layer, switch, False))


def _cut_fields(config: PreTrainedConfig, family: ModelFamily, kept: KeptUnits) -> dict[str, Any]:
    """The config as a dict without widths, its per-layer lists restricted to the kept blocks."""
    fields: dict[str, Any] = copy.deepcopy(config.to_dict())
    for name in ("per_layer_config", "auto_map", "architectures", "allow_global_per_layer_attribute_access"):
        fields.pop(name, None)
    fields.update({switch: False for switch in (*_BIAS_SWITCH.values(), "mlp_map") if switch in fields})
    fields["num_hidden_layers"] = len(kept.blocks)
    fields["head_dim"] = family.shapes(config)[0].head_dim
    fields["attn_implementation"] = config._attn_implementation
    for name in family.per_layer_lists:
        if isinstance(fields.get(name), list):
            fields[name] = [fields[name][block] for block in kept.blocks]
    return fields


def _uniform_fields(fields: dict[str, Any], shape: BlockShape) -> dict[str, Any]:
    return {
        **fields,
        "num_attention_heads": shape.key_value_groups * shape.queries_per_group,
        "num_key_value_heads": shape.key_value_groups,
        "intermediate_size": shape.channels,
    }


def _build(config_class: Any, fields: dict[str, Any]) -> PreTrainedConfig | None:
    """The config, or None if transformers rejects the fields."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return config_class.from_dict(fields)
    except (StrictDataclassError, ValueError):
        return None


def _stock_form(
    config_class: Any,
    fields: dict[str, Any],
    family: ModelFamily,
    shapes: Sequence[BlockShape],
    needed: Sequence[frozenset[str]],
) -> TargetArchitecture | None:
    if not accepts_uniform(shapes):
        return None
    fields = {key: value for key, value in fields.items() if key not in (*_BIAS_SWITCH.values(), "mlp_map")}
    fields = _uniform_fields(fields, shapes[0])
    for path in frozenset().union(*needed):
        switch = (family.bias_switches or {}).get(path)
        if switch is None:
            return None
        fields[switch] = True
    config = _build(config_class, fields)
    return config and TargetArchitecture(getattr(transformers, family.stock_class), config, family, stock=True)


def _llama_form(
    fields: dict[str, Any], family: ModelFamily, shapes: Sequence[BlockShape], needed: Sequence[frozenset[str]]
) -> TargetArchitecture | None:
    if family.llama_unless is None or fields.get(family.llama_unless) or not any(needed):
        return None
    fields = {name: fields[name] for name in (*_LLAMA_FIELDS, "attn_implementation") if name in fields}
    fields |= {"attention_bias": True, "mlp_bias": True}
    return _stock_form(transformers.LlamaConfig, fields, families["llama"], shapes, needed)


def _per_layer(
    config_class: Any,
    fields: dict[str, Any],
    family: ModelFamily,
    shapes: Sequence[BlockShape],
    needed: Sequence[frozenset[str]],
    maps: Sequence[bool],
) -> TargetArchitecture:
    per_layer: dict[int, dict[str, Any]] = {
        position: {
            "num_attention_heads": shape.key_value_groups * shape.queries_per_group,
            "num_key_value_heads": shape.key_value_groups,
            "intermediate_size": shape.channels,
            **{switch: path in paths for path, switch in _BIAS_SWITCH.items()},
        }
        for position, (shape, paths) in enumerate(zip(shapes, needed, strict=True))
    }
    if any(maps):
        fields = {**fields, "mlp_map": False}
        for position, has_map in enumerate(maps):
            per_layer[position]["mlp_map"] = has_map
    widest = max(shapes, key=lambda s: s.channels).channels
    fields = {
        **fields,
        "o_proj_bias": False,
        "down_proj_bias": False,
        "intermediate_size": max(widest, 1),
        # Without this the config's validation fails on saving.
        "allow_global_per_layer_attribute_access": True,
        "per_layer_config": per_layer,
    }
    config = config_class.from_dict(fields)
    from prunelab.models import modeling_prunelab

    return TargetArchitecture(getattr(modeling_prunelab, family.mixed_class), config, family, stock=False)


def accepts_uniform(shapes: Sequence[BlockShape]) -> bool:
    """Whether all blocks have the same shape and both sublayers."""
    return len(set(shapes)) == 1 and shapes[0].key_value_groups > 0 and shapes[0].channels > 0


def stock_group_counts(config: PreTrainedConfig, family: ModelFamily, biased: bool) -> tuple[int, ...]:
    """Numbers of key-value groups that a stock class accepts for every block of this model.

    Args:
        config: the model's config.
        family: its family.
        biased: whether every output projection gets a bias. If no stock class has all those biases, the checkpoint
            needs the modelling file in any case, and the numbers are those without biases.
    """
    shapes = family.shapes(config)
    everything = KeptUnits.everything(shapes)
    writers = frozenset(layout.output_projection for layout in family.layouts()) if biased else frozenset()
    accepted = tuple(
        count
        for count in range(1, shapes[0].key_value_groups + 1)
        if choose_architecture(
            config,
            family,
            replace(everything, key_value_groups=(tuple(range(count)),) * len(shapes)),
            (writers,) * len(shapes),
        ).stock
    )
    return accepted or (stock_group_counts(config, family, biased=False) if biased else ())


def stock_holds_biases(config: PreTrainedConfig, family: ModelFamily) -> bool:
    """Whether a uniformly pruned model with a bias on every output projection fits a stock class."""
    if family.llama_unless is not None:
        return not getattr(config, family.llama_unless, None)
    return all(layout.output_projection in (family.bias_switches or {}) for layout in family.layouts())
