from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from conftest import FAMILIES, Tiny, make_tiny, tiny_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from prunelab.allocation import Kept
from prunelab.calibration import CalibrationSet, calibrate
from prunelab.families import decoder_of
from prunelab.loading import LanguageModel
from prunelab.losses import mean_loss
from prunelab.methods import Budget, Evidence, methods
from prunelab.methods.flap import Flap
from prunelab.methods.shortgpt import block_influence
from prunelab.prune import make_pruning_plan, pruned_model

TinyOf = Callable[[str], Tiny]


@pytest.fixture(scope="module")
def pencil() -> PreTrainedModel:
    """One block, width 2, two key-value groups of two channels, two MLP channels; everything by hand.

    Token 0 is (1, 1), token 1 is (1, -1); both have root mean square 1, so norms change nothing. Queries are zero, so
    attention averages. Group 0 says (x0, x0), group 1 says (x1, x1); the output projection takes each pair's difference
    and so adds nothing to the residual stream. MLP channel j is relu(x_j) x_j.
    """
    config = LlamaConfig(
        vocab_size=2, hidden_size=2, intermediate_size=2, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=2, hidden_act="relu", rms_norm_eps=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    block = model.model.layers[0]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        block.self_attn.q_proj.weight.zero_()
        block.self_attn.k_proj.weight.zero_()
        block.self_attn.v_proj.weight.copy_(torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]))
        block.self_attn.o_proj.weight.copy_(torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]]))
        block.mlp.gate_proj.weight.copy_(torch.eye(2))
        block.mlp.up_proj.weight.copy_(torch.eye(2))
        block.mlp.down_proj.weight.copy_(torch.tensor([[1.0, 0], [0, 2]]))
    return model


def test_block_influence_by_hand(pencil: PreTrainedModel) -> None:
    # Channels are (1, 1) and (1, 0); the block adds (1, 2) and (1, 0): (1, 1) becomes (2, 3), (1, -1) becomes (2, -1).
    statistics = calibrate(decoder_of(pencil), CalibrationSet(torch.tensor([[0, 1]])))
    cosines = 5 / math.sqrt(2 * 13), 3 / math.sqrt(2 * 5)
    assert block_influence(statistics).tolist() == pytest.approx([1 - sum(cosines) / 2], abs=1e-6)


def test_flap_scores_by_hand(pencil: PreTrainedModel) -> None:
    # Group 0 hears 1 and 1: variance 0. Group 1 hears 1 and (1 - 1) / 2: variance 1/2, columns of norm 1.
    # S = (0, 0, 1/2, 1/2): mean 1/4, sample deviation sqrt(1/12). MLP: S = (0, 1/2 * 4): mean 1, deviation sqrt 2.
    decoder = decoder_of(pencil)
    statistics = calibrate(decoder, CalibrationSet(torch.tensor([[0, 1]])))
    scores = Flap().score(Evidence(decoder, statistics))
    assert scores.key_value_groups is not None
    assert scores.channels is not None
    z = 0.25 / math.sqrt(1 / 12)
    assert scores.key_value_groups[0].tolist() == pytest.approx([-z, z], abs=1e-5)
    assert scores.channels[0].tolist() == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)], abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", methods)
def test_a_method_keeps_within_its_budget(method: str, family: str, tiny: TinyOf) -> None:
    t = tiny(family)
    for ratio in (0.0, 0.25, 0.5):
        plan = make_pruning_plan(t.model, method, ratio, statistics=t.statistics, calibration=t.calibration)
        shape = t.model.decoder.shapes[0]
        unit = shape.cost if methods[method].strategy == "depth" else max(shape.group_cost, shape.channel_cost)
        assert abs(plan.achieved_ratio - ratio) <= unit / 2 / t.model.decoder.cost + 1e-9
        if methods[method].strategy == "depth":
            assert len(plan.blocks) == 4 * (1 - ratio)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [name for name in methods if not methods[name].is_random])
def test_the_plan_of_a_permuted_model_is_the_permuted_plan(method: str, family: str, tiny: TinyOf) -> None:
    t = tiny(family)
    model = tiny_model(family)
    generator = torch.Generator().manual_seed(1)
    groups, channels = torch.randperm(4, generator=generator), torch.randperm(40, generator=generator)
    decoder = decoder_of(model)
    with torch.no_grad():
        for block, shape in zip(decoder.blocks, decoder.shapes, strict=True):
            for layout, order in zip(decoder.family.layouts(), (groups, channels), strict=True):
                for reader in layout.readers:
                    module = block.get_submodule(reader.path)
                    rows = layout.rows(reader, shape, order.tolist())
                    for parameter in module.parameters():
                        parameter.copy_(parameter[rows].clone())
                weight = block.get_parameter(f"{layout.writer}.weight")
                weight.copy_(weight[:, layout.columns(shape, order.tolist())].clone())
    permuted = LanguageModel("permuted", model, t.model.tokenizer)
    statistics = calibrate(permuted.decoder, t.calibration)
    plan = make_pruning_plan(t.model, method, 0.3, statistics=t.statistics, calibration=t.calibration)
    other = make_pruning_plan(permuted, method, 0.3, statistics=statistics, calibration=t.calibration)
    assert [b.block for b in other.blocks] == [b.block for b in plan.blocks]
    for mine, theirs in zip(plan.blocks, other.blocks, strict=True):
        assert sorted(groups[list(theirs.key_value_groups)].tolist()) == list(mine.key_value_groups)
        assert sorted(channels[list(theirs.channels)].tolist()) == list(mine.channels)


@pytest.mark.parametrize("method", [name for name in methods if methods[name].is_random])
def test_a_random_method_follows_its_seed(method: str, tiny: TinyOf) -> None:
    decoder = tiny("llama").model.decoder

    def kept(seed: int) -> Kept:
        return methods[method].decide(Evidence(decoder, seed=seed), Budget(0.25)).kept

    assert kept(0) == kept(0)
    assert len({kept(seed) for seed in range(8)}) > 1


def test_hybrid_is_never_worse_than_either_on_the_held_out_text(tiny: TinyOf) -> None:
    t = tiny("llama")
    losses = {}
    assert t.calibration.held_out is not None
    for method in ("shortgpt", "flap", "hybrid"):
        plan = make_pruning_plan(t.model, method, 0.5, statistics=t.statistics, calibration=t.calibration)
        losses[method] = mean_loss(pruned_model(t.model, plan, t.statistics), t.calibration.held_out)
    assert losses["hybrid"] <= min(losses["shortgpt"], losses["flap"]) + 1e-6


def test_hybrid_writes_down_the_splits_it_tried(tiny: TinyOf) -> None:
    t = tiny("llama")
    plan = make_pruning_plan(t.model, "hybrid", 0.5, statistics=t.statistics, calibration=t.calibration)
    splits = plan.provenance["splits"]
    assert {split["removed_blocks"] for split in splits} == {0, 1, 2}
    assert plan.provenance["removed_blocks"] == min(splits, key=lambda s: s["loss"])["removed_blocks"]


def test_an_unimportant_block_is_found() -> None:
    """A block that changes nothing has influence 0 and goes first."""
    t = make_tiny("llama")
    with torch.no_grad():
        for name, parameter in t.model.decoder.blocks[1].named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    statistics = calibrate(t.model.decoder, t.calibration)
    assert block_influence(statistics)[1].item() == pytest.approx(0, abs=1e-6)
    for method in ("shortgpt", "magnitude_depth"):
        assert make_pruning_plan(t.model, method, 0.25, statistics=statistics).removed_blocks == [1]


def test_an_unimportant_group_and_channels_are_found() -> None:
    """Units whose columns are zero say nothing and go first, whatever the ranking."""
    t = make_tiny("llama")
    with torch.no_grad():
        block = t.model.decoder.blocks[2]
        block.get_parameter("self_attn.o_proj.weight")[:, 8:16] = 0  # group 1: two heads of four channels
        block.get_parameter("mlp.down_proj.weight")[:, [3, 5]] = 0
    statistics = calibrate(t.model.decoder, t.calibration)
    ratio = (t.model.decoder.shapes[0].group_cost + 2 * t.model.decoder.shapes[0].channel_cost) / t.model.decoder.cost
    for method in ("flap", "magnitude_width"):
        plan = make_pruning_plan(t.model, method, ratio * 4, statistics=statistics)
        assert 1 not in plan.blocks[2].key_value_groups
        assert not {3, 5} & set(plan.blocks[2].channels)
