from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, Tiny, make_tiny, tiny_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from prunelab.calibration import CalibrationSet, calibrate
from prunelab.calibration.joint_moments import JointMoments
from prunelab.errors import InvalidRequest
from prunelab.inference.losses import mean_divergence, mean_loss
from prunelab.models.families import BlockShape, decoder_of, families
from prunelab.models.loading import LanguageModel
from prunelab.pruning.allocation import Constraints, KeptUnits
from prunelab.pruning.apply import PruningOptions, make_pruning_plan, pruned_model
from prunelab.pruning.methods import Budget, MethodInputs, Shared, methods
from prunelab.pruning.methods.activation_norm import activation_sizes
from prunelab.pruning.methods.angular import angular_distances, last_states
from prunelab.pruning.methods.flap import Flap
from prunelab.pruning.methods.replaceme import cosine_distances
from prunelab.pruning.methods.shortgpt import block_influence
from prunelab.pruning.methods.two_stage import attentions_to_drop
from prunelab.pruning.methods.wanda_sp import WandaSp, column_sums
from prunelab.pruning.search.level_search import LevelSearch
from prunelab.pruning.search.levels import Level, SublayerLevels, elimination_order
from prunelab.pruning.search.prefix_reuse import DROP, KEEP, PrefixCachedLoss
from prunelab.pruning.surgery import cut

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
    scores = Flap().score(MethodInputs(decoder, statistics))
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
                for reader in layout.input_projections:
                    module = block.get_submodule(reader.path)
                    rows = layout.rows(reader, shape, order.tolist())
                    for parameter in module.parameters():
                        parameter.copy_(parameter[rows].clone())
                weight = block.get_parameter(f"{layout.output_projection}.weight")
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

    def kept(seed: int) -> KeptUnits:
        return methods[method].decide(MethodInputs(decoder, seed=seed), Budget(0.25)).kept

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
            kept = KeptUnits.everything(t.model.decoder.shapes).without_blocks([block])
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
    whole = KeptUnits.everything(t.model.decoder.shapes)
    for block in range(4):
        for path in ("self_attn.o_proj", "mlp.down_proj"):
            groups, channels = list(whole.key_value_groups), list(whole.channels)
            (groups if "attn" in path else channels)[block] = ()
            cost = shape.group_cost * 4 if "attn" in path else shape.channel_cost * 40
            model = cut(t.model.decoder, KeptUnits(whole.blocks, tuple(groups), tuple(channels)))
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
    scores = WandaSp().score(MethodInputs(decoder, statistics))
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
            losses[method] = mean_divergence(pruned, t.model, t.calibration.held_out)
    assert {"shortgpt", "flap", "greedy_depth", "wanda_sp"} <= set(losses)
    assert losses.pop("auto") <= min(losses.values()) + 1e-6


@pytest.mark.parametrize("method", ["auto", "greedy_depth", "sublayer", "angular"])
def test_what_ratios_share_changes_no_plan(method: str, tiny: TinyOf) -> None:
    t = tiny("llama")
    shared = Shared()

    def plan(ratio: float, shared: Shared | None) -> tuple[KeptUnits, float]:
        made = make_pruning_plan(
            t.model, method, ratio, statistics=t.statistics, calibration=t.calibration, shared=shared
        )
        return made.kept, made.provenance.get("search_passes", 0.0)

    for ratio in (0.5, 0.25):
        alone, together = plan(ratio, None), plan(ratio, shared)
        assert together[0] == alone[0]
    assert method == "angular" or together[1] < alone[1] or together[1] == 0


def test_divergence_by_hand_and_block_by_block(tiny: TinyOf) -> None:
    for family in ("llama", "gemma2"):
        t = tiny(family)
        assert t.calibration.held_out is not None
        pruned = t.model.with_model(
            cut(t.model.decoder, KeptUnits.everything(t.model.decoder.shapes).without_blocks([1]))
        )
        with torch.no_grad():
            said = pruned.model(input_ids=t.calibration.held_out).logits.log_softmax(dim=-1)
            wanted = t.model.model(input_ids=t.calibration.held_out).logits.log_softmax(dim=-1)
        expected = (wanted.exp() * (wanted - said)).sum(dim=-1).mean().item()
        assert mean_divergence(pruned, t.model, t.calibration.held_out) == pytest.approx(expected, rel=1e-3)
        assert mean_divergence(t.model, t.model, t.calibration.held_out) == pytest.approx(0, abs=1e-6)
        trunk = PrefixCachedLoss(t.model.decoder, t.calibration.held_out, against_whole=True)
        assert trunk.loss([KEEP, DROP, KEEP, KEEP]) == pytest.approx(expected, rel=1e-3)


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


def test_angular_distances_by_hand() -> None:
    # Two samples; the first turns by 90, then back by 90 degrees, the second by 0, then by 180.
    states = torch.tensor([[[1.0, 0], [1, 0]], [[0, 2], [3, 0]], [[1, 0], [-1, 0]]])
    assert angular_distances(states, 1).tolist() == pytest.approx([0.25, 0.75])
    assert angular_distances(states, 2).tolist() == pytest.approx([0.5])


def test_the_last_token_that_counts_is_seen(pencil: PreTrainedModel) -> None:
    """Of (1, 1), (1, -1) with padding behind: the state is (1, -1), and behind the block (2, -1)."""
    mask = torch.tensor([[True, True, False]])
    evidence = MethodInputs(decoder_of(pencil), calibration=CalibrationSet(torch.tensor([[0, 1, 0]]), mask))
    assert last_states(evidence.walk).flatten().tolist() == pytest.approx([1, -1, 2, -1], abs=1e-5)
    unpadded = MethodInputs(decoder_of(pencil), calibration=CalibrationSet(torch.tensor([[0, 1]])))
    assert last_states(unpadded.walk).flatten().tolist() == pytest.approx([1, -1, 2, -1], abs=1e-5)


def test_runs_are_as_far_apart_as_the_models_hidden_states(tiny: TinyOf) -> None:
    t = tiny("llama")
    ids = t.calibration.token_ids
    with torch.no_grad():
        # All but the last entry, which is taken behind the final norm.
        states = torch.stack(t.model.model(input_ids=ids, output_hidden_states=True).hidden_states[:-1])
    evidence = MethodInputs(t.model.decoder, calibration=t.calibration)
    cosines = torch.nn.functional.cosine_similarity(states[:-2], states[2:], dim=-1)
    assert cosine_distances(evidence.walk, 2)[:2].tolist() == pytest.approx(
        (1 - cosines.mean(dim=(1, 2))).tolist(), abs=1e-5
    )
    last = torch.nn.functional.cosine_similarity(states[:-2, :, -1], states[2:, :, -1], dim=-1)
    expected = (last.arccos() / math.pi).mean(dim=1)
    assert angular_distances(last_states(evidence.walk), 2)[:2].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("method", ["angular", "replaceme"])
def test_blocks_that_say_nothing_are_the_run_that_goes(method: str) -> None:
    t = make_tiny("qwen2")
    with torch.no_grad():
        for block in (2, 3):
            for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
                t.model.decoder.blocks[block].get_parameter(name).zero_()
    statistics = calibrate(t.model.decoder, t.calibration)
    plan = make_pruning_plan(t.model, method, 0.5, statistics=statistics, calibration=t.calibration)
    assert plan.removed_blocks == [2, 3]
    assert plan.provenance["distances"][2] == pytest.approx(0, abs=1e-3)
    small = pruned_model(t.model, plan, statistics, t.calibration)
    assert t.calibration.held_out is not None
    assert mean_loss(small, t.calibration.held_out) == pytest.approx(
        mean_loss(t.model, t.calibration.held_out), abs=1e-5
    )


def test_a_replaced_run_has_a_block_before_it(tiny: TinyOf) -> None:
    t = tiny("llama")
    plan = make_pruning_plan(t.model, "replaceme", 0.75, statistics=t.statistics, calibration=t.calibration)
    assert plan.removed_blocks == [1, 2, 3]
    options = PruningOptions(Constraints(protect_last=2))
    with pytest.raises(InvalidRequest, match="a run of 2 blocks"):
        make_pruning_plan(
            t.model, "replaceme", 0.5, statistics=t.statistics, calibration=t.calibration, options=options
        )


def test_attentions_of_the_second_stage_by_hand() -> None:
    # 32 blocks, MLPs of twice the attention's weights: 32 * 0.5^(2 / 1.5) = 12.7; 40 % of one block pays for one.
    assert attentions_to_drop(32, 0.5, 200, 100) == 13
    assert attentions_to_drop(32, 0.1, 200, 100) == 1
    assert attentions_to_drop(1, 0.9, 10, 100) == 0


def test_the_two_stages_narrow_alike_and_drop_the_cheapest_attention(tiny: TinyOf) -> None:
    t = tiny("llama")
    plan = make_pruning_plan(t.model, "two_stage", 0.3, statistics=t.statistics, calibration=t.calibration)
    shape, whole = t.model.decoder.shapes[0], KeptUnits.everything(t.model.decoder.shapes)
    # 4 * 0.3^(3840 / 3072 / 1.5) = 1.47: one attention; the rest of the budget in channels, shared out.
    channels = round((0.3 * t.model.decoder.cost - 4 * shape.group_cost) / shape.channel_cost)
    assert sorted(40 - len(block.channels) for block in plan.blocks) == [
        channels // 4 + (n >= 4 - channels % 4) for n in range(4)
    ]
    sizes = activation_sizes(t.statistics, 0, t.model.decoder.family.mlp)
    assert set(plan.blocks[0].channels) == set(sizes.argsort()[40 - len(plan.blocks[0].channels) :].tolist())
    losses = []
    assert t.calibration.held_out is not None
    for block in range(4):
        groups = tuple(() if at == block else units for at, units in enumerate(whole.key_value_groups))
        model = cut(t.model.decoder, KeptUnits(whole.blocks, groups, tuple(b.channels for b in plan.blocks)))
        losses.append(mean_loss(t.model.with_model(model), t.calibration.held_out))
    assert [block.block for block in plan.blocks if not block.key_value_groups] == [losses.index(min(losses))]


@pytest.mark.parametrize("method", ["flap", "hybrid", "two_stage", "auto"])
@pytest.mark.parametrize("multiple", [8, 16])
def test_pruned_widths_are_a_multiple(method: str, multiple: int, tiny: TinyOf) -> None:
    t = tiny("llama")
    options = PruningOptions(Constraints(channel_multiple=multiple))
    for ratio in (0.05, 0.3, 0.6):
        plan = make_pruning_plan(
            t.model, method, ratio, statistics=t.statistics, calibration=t.calibration, options=options
        )
        widths = [len(block.channels) for block in plan.blocks]
        assert all(width % multiple == 0 for width in widths if width != 40), (ratio, widths)
        assert abs(plan.achieved_ratio - ratio) <= 0.5 / 4, "half a block"


@pytest.mark.parametrize("method", ["auto", "sublayer", "sublayer_influence", "two_stage", "flap", "shortgpt"])
def test_a_ratio_that_removes_nothing_is_refused(method: str, tiny: TinyOf) -> None:
    t = tiny("llama")
    with pytest.raises(InvalidRequest, match="removes nothing"):
        make_pruning_plan(t.model, method, 0.001, statistics=t.statistics, calibration=t.calibration)


def test_auto_removes_what_is_asked_where_others_remove_nothing(tiny: TinyOf) -> None:
    """Half a key-value group is 1.4 %, a channel 0.35 %."""
    t = tiny("llama")
    plan = make_pruning_plan(t.model, "auto", 0.01, statistics=t.statistics, calibration=t.calibration)
    assert plan.achieved_ratio == pytest.approx(3 / 4 / 72 * 1.0, abs=0.002)
    assert plan.provenance["chosen_by"] == "search"


@pytest.mark.parametrize("method", ["sublayer", "sublayer_influence"])
def test_sublayers_that_fall_far_short_are_refused(method: str) -> None:
    """Of one block one sublayer stays: 44 or 56 % is all that can go."""
    t = make_tiny("llama", num_hidden_layers=1)
    with pytest.raises(InvalidRequest, match="out of reach"):
        make_pruning_plan(t.model, method, 0.9, statistics=t.statistics, calibration=t.calibration)


def test_auto_sees_a_key_value_group_of_many_blocks() -> None:
    """One of 256 groups in blocks of Llama-3-8B's shapes is 0.08 % of the weights: 32 of them cost next to nothing."""
    shape = BlockShape(hidden=4096, key_value_groups=8, queries_per_group=4, head_dim=128, channels=14336)
    attentions = [Level(tuple(range(8 - n)), n * shape.group_cost, None) for n in range(9)]
    mlps = [Level(tuple(range(14336 - 896 * n)), 896 * n * shape.channel_cost, None) for n in range(17)]
    attention, mlp = families["llama"].layouts()
    sublayers, losses = [], []
    for block in range(32):
        sublayers += [
            SublayerLevels(block, attention, tuple(attentions), ()),
            SublayerLevels(block, mlp, tuple(mlps), ()),
        ]
        losses += [np.array([0, 0.001, *range(10, 17)]), np.arange(17.0)]
    evidence: Any = SimpleNamespace(decoder=SimpleNamespace(cost=32 * shape.cost, shapes=(shape,) * 32))
    trunk: Any = None
    chosen = LevelSearch(evidence, sublayers, losses, 32 * shape.group_cost, 1, trunk)._cheapest()
    # Levels are counted in whole bins, downwards: some more goes than was asked for, and is given back afterwards.
    assert set(chosen[::2]) <= {0, 1}
    assert sum(chosen[::2]) >= 30
    assert sum(chosen[1::2]) <= 3


def test_auto_refuses_what_is_out_of_reach_before_it_measures(tiny: TinyOf) -> None:
    t = tiny("llama")
    shared = Shared()
    options = PruningOptions(Constraints(protect_first=3))
    with pytest.raises(
        InvalidRequest, match=r"ratio 0\.3 is out of reach: the blocks that may be pruned hold 0\.25 of"
    ):
        make_pruning_plan(
            t.model, "auto", 0.3, statistics=t.statistics, calibration=t.calibration, options=options, shared=shared
        )
    assert not shared._found
