from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, LIKE_IDEFICS3, VARIANTS, tiny_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig

from prunelab.errors import UnknownName, UnsupportedModel
from prunelab.io.registry import Registry
from prunelab.models.families import BlockShape, InputProjection, UnitLayout, decoder_of, families, find_family


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        (BlockShape(4096, 8, 4, 128, 14336), 427),  # Llama-3-8B
        (BlockShape(3584, 4, 7, 128, 18944), 683),  # Qwen2-7B
        (BlockShape(3584, 8, 2, 256, 14336), 512),  # Gemma-2-9B
    ],
)
def test_a_group_costs_so_many_channels(shape: BlockShape, channels: int) -> None:
    assert round(shape.group_cost / shape.channel_cost) == channels


@pytest.mark.parametrize("family", FAMILIES)
def test_cost_is_the_projections_weights(family: str) -> None:
    decoder = decoder_of(tiny_model(family))
    projections = [
        p.numel()
        for name, p in decoder.model.named_parameters()
        if "proj.weight" in name and name.startswith(decoder.prefix)
    ]
    assert decoder.cost == sum(projections)
    assert decoder.family.name == family


def test_every_family_is_tried() -> None:
    tried = {decoder_of(tiny_model(variant)).family.name for variant in (*VARIANTS, *LIKE_IDEFICS3)}
    assert tried == set(families)


def test_llama_3_8b_is_read_from_its_config() -> None:
    config = LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        architectures=["LlamaForCausalLM"],
    )
    shapes = find_family(config).shapes(config)
    assert shapes == (BlockShape(4096, 8, 4, 128, 14336),) * 32
    assert sum(s.cost for s in shapes) == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)


def test_an_unsupported_architecture_is_named_with_the_supported_ones() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=8))
    with pytest.raises(UnsupportedModel, match=r"GPT2LMHeadModel.*LlamaForCausalLM.*Qwen2ForCausalLM"):
        decoder_of(model)


def test_rows_of_a_fused_projection() -> None:
    """Two groups of two query heads of one channel each, fused as query, key, value."""
    shape = BlockShape(hidden=8, key_value_groups=2, queries_per_group=2, head_dim=1, channels=3)
    fused = InputProjection("qkv", ("query", "key", "value"))
    layout = UnitLayout("key_value_group", (fused,), "o", "query")
    assert layout.rows(fused, shape, [1]).tolist() == [2, 3, 5, 7]
    assert layout.columns(shape, [1]).tolist() == [2, 3]
    gate_up = InputProjection("gate_up", ("channel", "channel"))
    assert UnitLayout("channel", (gate_up,), "d", "channel").rows(gate_up, shape, [0, 2]).tolist() == [0, 2, 3, 5]


def test_a_registry_refuses_duplicates_and_suggests() -> None:
    registry: Registry[int] = Registry("method")
    registry.add("flap", 1)
    with pytest.raises(ValueError, match="two methods are called 'flap'"):
        registry.add("flap", 2)
    with pytest.raises(UnknownName, match="no method is called 'flop': did you mean 'flap'"):
        registry["flop"]


def test_parameters_count_tied_weights_once() -> None:
    model = tiny_model("qwen2")
    assert decoder_of(model).parameters == model.num_parameters()
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
