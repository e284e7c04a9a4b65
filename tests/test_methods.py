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
from prunelab.levels import elimination_order
from prunelab.loading import LanguageModel
from prunelab.losses import mean_loss
from prunelab.methods import Budget, Evidence, methods
from prunelab.methods.activation_norm import activation_sizes
from prunelab.methods.flap import Flap
from prunelab.methods.shortgpt import block_influence
from prunelab.methods.wanda_sp import WandaSp, column_sums
from prunelab.prune import make_pruning_plan, pruned_model
from prunelab.regression import JointMoments
from prunelab.surgery import cut

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
        attention = shape.group_cost * shape.key_value_groups
        unit = shape.cost if methods[method].strategy == "depth" else max(shape.group_cost, shape.channel_cost)
        unit = max(attention, shape.cost - attention) if method.startswith("sublayer") else unit
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


def test_greedy_depth_of_one_block_is_exhaustive_search(tiny: TinyOf) -> None:
    for family in FAMILIES:
        t = tiny(family)
        plan = make_pruning_plan(t.model, "greedy_depth", 0.25, statistics=t.statistics, calibration=t.calibration)
        assert t.calibration.held_out is not None
        losses = []
        for block in range(4):
            kept = Kept.everything(t.model.decoder.shapes).without_blocks([block])
            losses.append(mean_loss(t.model.with_model(cut(t.model.decoder, kept)), t.calibration.held_out))
        assert plan.removed_blocks == [min(range(4), key=losses.__getitem__)]
        assert plan.provenance["losses"] == [pytest.approx(min(losses), abs=1e-5)]
        # The dense model, then each candidate from its own block on, that block itself not run.
        assert plan.provenance["search_passes"] == (4 + 3 + 2 + 1 + 0) / 4


def test_the_first_sublayer_to_go_is_the_cheapest_by_weight(tiny: TinyOf) -> None:
    t = tiny("llama")
    shape = t.model.decoder.shapes[0]
    ratio = 2 * shape.group_cost * shape.key_value_groups / t.model.decoder.cost
    plan = make_pruning_plan(t.model, "sublayer", ratio, statistics=t.statistics, calibration=t.calibration)
    assert t.calibration.held_out is not None
    dense, rises = mean_loss(t.model, t.calibration.held_out), {}
    whole = Kept.everything(t.model.decoder.shapes)
    for block in range(4):
        for path in ("self_attn.o_proj", "mlp.down_proj"):
            groups, channels = list(whole.key_value_groups), list(whole.channels)
            (groups if "attn" in path else channels)[block] = ()
            cost = shape.group_cost * 4 if "attn" in path else shape.channel_cost * 40
            model = cut(t.model.decoder, Kept(whole.blocks, tuple(groups), tuple(channels)))
            rises[block, path] = (mean_loss(t.model.with_model(model), t.calibration.held_out) - dense) / cost
    assert tuple(plan.provenance["removed_in_order"][0]) == min(rises, key=rises.__getitem__)


def test_a_sublayer_that_says_nothing_goes_first() -> None:
    t = make_tiny("llama")
    with torch.no_grad():
        t.model.decoder.blocks[2].get_parameter("self_attn.o_proj.weight").zero_()
    statistics = calibrate(t.model.decoder, t.calibration)
    plan = make_pruning_plan(t.model, "sublayer_influence", 0.1, statistics=statistics, calibration=t.calibration)
    assert plan.blocks[2].key_value_groups == ()


def test_activation_scores_by_hand(pencil: PreTrainedModel) -> None:
    # Group 0 hears (1, 1) twice; group 1 hears (1, 1) and (0, 0): root mean squares 1, 1, sqrt 1/2, sqrt 1/2.
    decoder = decoder_of(pencil)
    statistics = calibrate(decoder, CalibrationSet(torch.tensor([[0, 1]])))
    sizes = activation_sizes(statistics, 0, decoder.family.attention)
    assert sizes.tolist() == pytest.approx([1, 1, math.sqrt(0.5), math.sqrt(0.5)], abs=1e-6)
    # Columns of the MLP's output projection: (1, 0) and (0, 2); its channels are (1, 1) and (1, 0).
    assert column_sums(decoder, 0, decoder.family.mlp).tolist() == [1, 2]
    scores = WandaSp().score(Evidence(decoder, statistics))
    assert scores.channels is not None
    raw = torch.tensor([1.0, 2 * math.sqrt(0.5)])
    assert scores.channels[0].tolist() == pytest.approx(((raw - raw.mean()) / raw.std()).tolist(), abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_auto_is_never_worse_than_the_best_single_method(family: str, tiny: TinyOf) -> None:
    t = tiny(family)
    losses = {}
    assert t.calibration.held_out is not None
    for method in [name for name in methods if not methods[name].is_random]:
        plan = make_pruning_plan(t.model, method, 0.25, statistics=t.statistics, calibration=t.calibration)
        pruned = pruned_model(t.model, plan, t.statistics, t.calibration)
        shape = t.model.decoder.shapes[0]
        if method == "auto" or abs(plan.achieved_ratio - 0.25) <= shape.group_cost / 2 / t.model.decoder.cost + 1e-9:
            losses[method] = mean_loss(pruned, t.calibration.held_out)
    assert {"shortgpt", "flap", "greedy_depth", "wanda_sp"} <= set(losses)
    assert losses.pop("auto") <= min(losses.values()) + 1e-6


def test_units_that_others_can_say_go_first() -> None:
    """Channel 1 is channel 0 doubled: one of the two goes first, the other takes over."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator)
    x[:, 1] = 2 * x[:, 0]
    weight = torch.eye(4)
    moments = JointMoments.none(4, 0)
    moments.add(x, x[:, :0])
    assert elimination_order(weight, moments, 4)[0] in (0, 1)
    # In pairs: the variances of 0 and 1 are 1 and 4, those of 2 and 3 are 1 each.
    assert elimination_order(weight, moments, 2)[0] == 1
