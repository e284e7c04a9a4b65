"""Least squares: what it promises by hand, on constructed redundancy, and layer by layer over every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Tiny, make_tiny, tiny_calibration
from torch import Tensor

from prunelab.calibration import CalibrationSet, calibrate
from prunelab.calibration.joint_moments import JointMoments
from prunelab.checkpoint.save import save_checkpoint
from prunelab.errors import InvalidRequest, PlanMismatch, UnknownName
from prunelab.inference.losses import mean_divergence, mean_loss
from prunelab.models.families import Decoder
from prunelab.models.loading import load_model
from prunelab.pruning.allocation import Constraints, KeptUnits
from prunelab.pruning.apply import PruningOptions, make_pruning_plan, pruned_model
from prunelab.pruning.compensation import COMPENSATORS, least_squares, sequential
from prunelab.pruning.compensation.projection import CompensatedProjection, masked
from prunelab.pruning.compensation.ridge import DEFICIENT_RIDGE, RIDGE, fit, ridge, solve
from prunelab.pruning.methods import methods
from prunelab.pruning.search.layerwise import LayerwiseRunner, override_projections
from prunelab.pruning.search.levels import elimination_order
from prunelab.pruning.surgery import cut

TinyOf = Callable[[str], Tiny]
KINDS = tuple(COMPENSATORS)
FITTED = ("least_squares", "sequential")
"""Those that make up for what is removed in width."""


def narrowed(decoder: Decoder) -> KeptUnits:
    """Half of everything in block 1, some channels of block 2, block 3 gone."""
    whole = KeptUnits.everything(decoder.shapes)
    groups, channels = list(whole.key_value_groups), list(whole.channels)
    groups[1], channels[1], channels[2] = (0, 3), tuple(range(0, 40, 2)), tuple(range(30))
    return KeptUnits(whole.blocks, tuple(groups), tuple(channels)).without_blocks([3])


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_moments_do_not_depend_on_how_tokens_are_batched() -> None:
    x, y = draws(50, 3) + 7, draws(50, 2, seed=1)
    once, thrice = JointMoments.none(3, 2), JointMoments.none(3, 2)
    once.add(x, y)
    for part in (slice(0, 1), slice(1, 20), slice(20, 50)):
        thrice.add(x[part], y[part])
    assert torch.allclose(once.inputs, torch.cov(x.T) * 49)
    for name in ("input_mean", "target_mean", "inputs", "cross"):
        assert torch.allclose(getattr(once, name), getattr(thrice, name), atol=1e-10)


def test_a_linear_relation_is_found() -> None:
    x = draws(200, 4)
    truth, constant = draws(3, 4, seed=1), draws(3, seed=2)
    moments = JointMoments.none(4, 3)
    moments.add(x, x @ truth.T + constant)
    found, offset = fit(moments)
    assert (found - truth).abs().max() < 1e-3
    assert (offset - constant).abs().max() < 1e-3


def test_the_ridge_follows_the_spectrum_and_the_rank() -> None:
    moments = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert ridge(moments, 10) == pytest.approx(RIDGE * 2)
    assert ridge(100 * moments, 10) == pytest.approx(RIDGE * 200)
    assert ridge(moments, 2) == pytest.approx(DEFICIENT_RIDGE * 2)
    assert torch.equal(solve(torch.zeros(2, 2, dtype=torch.float64), draws(2, 3), 10), torch.zeros(3, 2).double())


def test_fewer_tokens_than_channels_stay_finite_and_small() -> None:
    x, y = draws(5, 40), draws(5, 2, seed=1)
    moments = JointMoments.none(40, 2)
    moments.add(x, y)
    found, _ = fit(moments)
    # The least-norm interpolation is the limit of no ridge; with one the map is smaller.
    interpolation = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0), driver="gelsd").solution
    assert found.norm() < interpolation.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_removed_changes_nothing(variant: str, kind: str, tiny: TinyOf) -> None:
    t = tiny(variant)
    assert COMPENSATORS[kind](t.model.decoder, KeptUnits.everything(t.model.decoder.shapes), t.calibration, None) == {}


@pytest.mark.parametrize("kind", FITTED)
def test_channels_that_others_can_say_are_not_missed(kind: str) -> None:
    """Channels 20 to 39 are copies of 0 to 19 at other scales: nothing is lost with them."""
    t = make_tiny("llama")
    block = t.model.decoder.blocks[1]
    scale = torch.linspace(0.5, 2, 20)[:, None]
    with torch.no_grad():
        gate, up = block.get_parameter("mlp.gate_proj.weight"), block.get_parameter("mlp.up_proj.weight")
        gate[20:] = gate[:20]
        up[20:] = scale * up[:20]
    whole = KeptUnits.everything(t.model.decoder.shapes)
    channels = (whole.channels[0], tuple(range(20)), *whole.channels[2:])
    kept = KeptUnits(whole.blocks, whole.key_value_groups, channels)
    # More tokens than channels, as the ridge of a deficient rank is not meant to be exact.
    calibration = tiny_calibration(samples=20)
    ids = calibration.token_ids[:4]
    with torch.no_grad():
        before = t.model.model(input_ids=ids).logits
        after = cut(t.model.decoder, kept, kind, calibration=calibration)(input_ids=ids).logits  # type: ignore[arg-type]
        plain = cut(t.model.decoder, kept)(input_ids=ids).logits
    size = before.abs().max()
    assert (after - before).abs().max() <= 1e-4 * size
    assert (plain - before).abs().max() > 1e-2 * size


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_layer_is_further_off_than_with_a_bias(variant: str, tiny: TinyOf) -> None:
    """On the calibration tokens, the whole model's inputs given to each projection."""
    t = tiny(variant)
    decoder, kept = t.model.decoder, narrowed(t.model.decoder)
    repairs = least_squares(decoder, kept, t.calibration)
    assert set(repairs) == {(1, "self_attn.o_proj"), (1, "mlp.down_proj"), (2, "mlp.down_proj")}
    walk = LayerwiseRunner.of(decoder, t.calibration)
    hidden = walk.start
    for block in range(3):
        for layout in decoder.family.layouts():
            if (block, layout.output_projection) not in repairs:
                continue
            inputs = [seen.inputs for seen in walk.watch(block, hidden, until=layout.output_projection)]
            x = torch.cat([one.flatten(0, 1) for one in inputs if one is not None]).double()
            weight, old = (
                decoder.weight(block, layout.output_projection).double(),
                decoder.bias(block, layout.output_projection),
            )
            wanted = x @ weight.T + (0 if old is None else old.double())
            units = (kept.key_value_groups if layout.unit == "key_value_group" else kept.channels)[block]
            columns = layout.columns(decoder.shapes[block], units)
            repair = repairs[block, layout.output_projection]
            assert repair.bias is not None
            least = ((x[:, columns] @ repair.weight.double().T + repair.bias.double() - wanted) ** 2).mean()
            left = wanted - x[:, columns] @ weight[:, columns].T
            assert least <= ((left - left.mean(dim=0)) ** 2).mean() * (1 + 1e-6)
        hidden = walk.through(block, hidden)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_cut_model_computes_what_the_masked_one_does(variant: str, kind: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(variant)
    kept = narrowed(t.model.decoder)
    repairs = COMPENSATORS[kind](t.model.decoder, kept, t.calibration, None)
    ids = t.calibration.token_ids[:2]
    walk = LayerwiseRunner(t.model.decoder, ids)
    hidden = walk.start
    for position, block in enumerate(kept.blocks):
        writers = {}
        for layout in t.model.decoder.family.layouts():
            units = (kept.key_value_groups if layout.unit == "key_value_group" else kept.channels)[position]
            repair = repairs.get((block, layout.output_projection))
            if repair is not None:
                writers[layout.output_projection] = masked(t.model.decoder, block, layout, units, repair)
        hidden = walk.through(block, hidden, writers)
    pruned = cut(t.model.decoder, kept, kind, calibration=t.calibration)  # type: ignore[arg-type]
    assert walk.loss(hidden) == pytest.approx(mean_loss(t.model.with_model(pruned), ids), abs=1e-5)
    options = PruningOptions(compensation=kind)  # type: ignore[arg-type]
    plan = make_pruning_plan(t.model, "flap", 0.3, statistics=t.statistics, calibration=t.calibration, options=options)
    small = pruned_model(t.model, plan, t.statistics, t.calibration)
    save_checkpoint(small, plan, tmp_path / "out")
    reloaded = load_model(str(tmp_path / "out"), device="cpu").model
    with torch.no_grad():
        assert torch.equal(reloaded(input_ids=ids).logits, small.model(input_ids=ids).logits)


def test_the_blocks_run_one_by_one_are_the_model(tiny: TinyOf) -> None:
    for variant in VARIANTS:
        t = tiny(variant)
        assert t.calibration.held_out is not None
        walk = LayerwiseRunner(t.model.decoder, t.calibration.held_out)
        hidden = walk.start
        for block in range(4):
            hidden = walk.through(block, hidden)
        assert walk.loss(hidden) == pytest.approx(mean_loss(t.model, t.calibration.held_out), abs=1e-5)


@pytest.mark.parametrize("variant", ["llama", "gemma2", "qwen2"])
def test_sequential_makes_up_for_a_block_that_went(variant: str, tiny: TinyOf) -> None:
    """Behind the cut the residual stream is nearer to the whole model's on the calibration tokens."""
    t = tiny(variant)
    decoder = t.model.decoder
    kept = KeptUnits.everything(decoder.shapes).without_blocks([1])
    repairs = sequential(decoder, kept, t.calibration)
    assert {block for block, _ in repairs} == {2, 3}
    walk = LayerwiseRunner.of(decoder, t.calibration)
    whole = walk.start
    for block in range(3):
        whole = walk.through(block, whole)

    def distance(repairs: dict[tuple[int, str], CompensatedProjection]) -> float:
        hidden = walk.through(0, walk.start)
        writers = {}
        for layout in decoder.family.layouts():
            if repairs:
                units = tuple(range(decoder.shapes[2].units(layout.part)))
                writers[layout.output_projection] = masked(
                    decoder, 2, layout, units, repairs[2, layout.output_projection]
                )
        hidden = walk.through(2, hidden, writers)
        return sum(((a - b) ** 2).sum().item() for a, b in zip(hidden, whole, strict=True))

    assert distance(repairs) < 0.9 * distance({})


@pytest.mark.parametrize("variant", ["llama", "llama_biased", "gemma2"])
def test_a_run_that_is_linear_in_the_mlp_before_it_is_replaced_exactly(variant: str) -> None:
    """Attention says nothing, so states depend on the token alone; of a few kinds of tokens everything is linear."""
    t = make_tiny(variant)
    with torch.no_grad():
        for block in t.model.decoder.blocks:
            block.get_parameter("self_attn.o_proj.weight").zero_()
    kinds = torch.randint(12, (8, 24), generator=torch.Generator().manual_seed(0))
    kept = KeptUnits.everything(t.model.decoder.shapes).without_blocks([2, 3])
    whole, plain = mean_loss(t.model, kinds), mean_loss(t.model.with_model(cut(t.model.decoder, kept)), kinds)
    replaced = t.model.with_model(cut(t.model.decoder, kept, "linear_map", calibration=CalibrationSet(kinds)))
    ids = kinds[:2]
    with torch.no_grad():
        wanted, found = t.model.model(input_ids=ids).logits, replaced.model(input_ids=ids).logits
    assert (found - wanted).abs().max() <= 1e-3 * wanted.abs().max()
    assert abs(mean_loss(replaced, kinds) - whole) < 1e-3 < abs(plain - whole)


def test_a_map_is_least_squares_by_another_way(tiny: TinyOf) -> None:
    t = tiny("llama")
    decoder = t.model.decoder
    kept = KeptUnits.everything(decoder.shapes).without_blocks([2])
    calibration = tiny_calibration(samples=20)
    repairs = COMPENSATORS["linear_map"](decoder, kept, calibration, None)
    assert set(repairs) == {(1, "mlp.down_proj")}
    walk = LayerwiseRunner.of(decoder, calibration)
    hidden = walk.through(0, walk.start)
    seen = list(walk.watch(1, hidden))
    m = torch.cat([one.added["mlp.down_proj"].flatten(0, 1) for one in seen]).double()
    stream = [one.output for one in seen if one.output is not None]
    behind = walk.through(2, stream)
    y = torch.cat([s.flatten(0, 1) for s in stream]).double() - m
    aim = torch.cat([s.flatten(0, 1) for s in behind]).double()
    found = torch.linalg.lstsq(m, aim - y).solution
    expected = found.T @ decoder.weight(1, "mlp.down_proj").double()
    assert (repairs[1, "mlp.down_proj"].weight - expected).abs().max() < 1e-2 * expected.abs().max()
    assert repairs[1, "mlp.down_proj"].bias is None


def test_a_map_behind_gemmas_norm_is_pruned_and_mapped_again(tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("gemma2")
    options = PruningOptions(Constraints(protect_first=2, protect_last=1))
    plan = make_pruning_plan(
        t.model, "replaceme", 0.25, statistics=t.statistics, calibration=t.calibration, options=options
    )
    small = pruned_model(t.model, plan, t.statistics, t.calibration)
    save_checkpoint(small, plan, tmp_path / "out")
    again = load_model(str(tmp_path / "out"), device="cpu")
    ids = t.calibration.token_ids[:2]
    with torch.no_grad():
        assert torch.equal(again.model(input_ids=ids).logits, small.model(input_ids=ids).logits)
        kept = KeptUnits.everything(again.decoder.shapes)
        same = cut(again.decoder, kept)(input_ids=ids).logits
        assert torch.equal(same, small.model(input_ids=ids).logits)
    twice = cut(again.decoder, kept.without_blocks([2]), "linear_map", calibration=t.calibration)
    maps = [name for name in twice.state_dict() if name.endswith("layernorm.map")]
    assert len(maps) == 1
    once = dict(again.model.named_parameters())[maps[0]]
    assert not torch.equal(twice.state_dict()[maps[0]], once)


def test_a_map_behind_gemmas_norm_does_not_mislead_sequential() -> None:
    """Channels that say nothing are not missed, with a map from an earlier cut behind the norm."""
    t = make_tiny("gemma2")
    calibration = tiny_calibration(samples=40)
    whole = KeptUnits.everything(t.model.decoder.shapes)
    once = t.model.with_model(cut(t.model.decoder, whole.without_blocks([2]), "linear_map", None, calibration))
    decoder = once.decoder
    assert decoder.map_behind(1, decoder.family.residual_output(decoder.family.mlp.output_projection)) is not None
    with torch.no_grad():
        for block in range(3):
            decoder.weight(block, decoder.family.mlp.output_projection)[:, :8] = 0
    left = KeptUnits.everything(decoder.shapes)
    left = replace(left, channels=tuple(tuple(range(8, 40)) for _ in left.blocks))
    twice = once.with_model(cut(decoder, left, "sequential", None, calibration))
    assert calibration.held_out is not None
    assert mean_divergence(twice, once, calibration.held_out) < 1e-6


def test_where_a_stock_class_is_wanted_gemma_gets_no_map(tiny: TinyOf) -> None:
    t = tiny("gemma2")
    options = PruningOptions(Constraints(protect_first=2, protect_last=1), uniform=True)
    plan = make_pruning_plan(
        t.model, "replaceme", 0.25, statistics=t.statistics, calibration=t.calibration, options=options
    )
    assert plan.compensation == "none"
    assert "compensation is off: the stock class has no slot for the linear map" in plan.notes
    assert type(pruned_model(t.model, plan).model).__name__ == "Gemma2ForCausalLM"


def test_an_exchanged_projection_comes_back(tiny: TinyOf) -> None:
    t = tiny("llama")
    block = t.model.decoder.blocks[0]
    before = block.get_parameter("mlp.down_proj.weight")
    repair = CompensatedProjection(torch.zeros(32, 40), torch.ones(32))
    layout = t.model.decoder.family.mlp
    written = masked(t.model.decoder, 0, layout, tuple(range(40)), repair)
    with override_projections(block, {"mlp.down_proj": written}):
        assert block.get_parameter("mlp.down_proj.weight") is not before
    assert block.get_parameter("mlp.down_proj.weight") is before
    assert block.get_submodule("mlp.down_proj").bias is None


def test_padding_does_not_count(tiny: TinyOf) -> None:
    t = tiny("llama")
    kept = narrowed(t.model.decoder)
    ids, mask = t.calibration.token_ids[:2].clone(), torch.ones(2, 24)
    mask[1, 16:] = 0
    padded = ids.clone()
    padded[1, 16:] = 3
    first = least_squares(t.model.decoder, kept, CalibrationSet(ids, mask))
    second = least_squares(t.model.decoder, kept, CalibrationSet(padded, mask))
    for place, repair in first.items():
        assert torch.allclose(repair.weight, second[place].weight, atol=1e-5)


@pytest.mark.parametrize("channels", [256, 512])
def test_massive_activations_do_not_stop_least_squares(channels: int) -> None:
    """A quarter of the channels speaks in one direction, ten thousand times as loud as the others."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2 * channels, channels, generator=generator)
    loud = channels // 4
    x[:, :loud] = 1e4 * torch.randn(len(x), 1, generator=generator) * torch.randn(1, loud, generator=generator)
    x[:, :loud] += 0.01 * torch.randn(len(x), loud, generator=generator)
    exact = JointMoments.none(channels, 0)
    exact.add(x.double())
    noise = torch.randn(channels, channels, generator=generator).double()
    moments = replace(exact, inputs=exact.inputs * (1 + 3e-7 * (noise + noise.T)))
    before = moments.inputs.clone()
    assert torch.linalg.eigvalsh(before)[0] < -ridge(before, moments.count), "as sums in float32 can be"
    kept, gone = torch.arange(channels) % 4 != 1, torch.arange(channels) % 4 == 1

    def left(one: JointMoments) -> float:
        """What the kept channels do not say of the sum of the others, as a share."""
        map_ = solve(one.inputs[kept][:, kept], one.inputs[kept][:, gone].sum(dim=1, keepdim=True), one.count)
        weights = torch.zeros(channels, dtype=torch.float64)
        weights[gone], weights[kept] = 1.0, -map_[0]
        whole = exact.inputs[gone][:, gone].sum()
        return (weights @ exact.inputs @ weights / whole).item()

    assert left(exact) < left(moments) < 1e-4
    assert sorted(elimination_order(torch.eye(channels)[:4], moments, channels)) == list(range(channels))
    assert moments.inputs.equal(before)


def test_few_tokens_are_said(tiny: TinyOf) -> None:
    t = tiny("llama")
    calibration = tiny_calibration(samples=1)
    statistics = calibrate(t.model.decoder, calibration)
    plan = make_pruning_plan(t.model, "flap+least_squares", 0.3, statistics=statistics, calibration=calibration)
    assert any("rank-deficient" in note for note in plan.notes)
    plan = make_pruning_plan(t.model, "flap+sequential", 0.3, statistics=t.statistics, calibration=t.calibration)
    assert not any("rank-deficient" in note for note in plan.notes)
    # 36 tokens: fewer than an MLP's 40 channels, more than the 32 of the residual stream that a map is fitted to.
    calibration = tiny_calibration(samples=3, tokens=12)
    statistics = calibrate(t.model.decoder, calibration)
    for method, ratio, said in (
        ("replaceme", 0.25, ()),
        ("two_stage+sequential", 0.05, ("36 calibration tokens are too few for the 37 inputs",)),
        ("two_stage+sequential", 0.3, ()),
    ):
        plan = make_pruning_plan(t.model, method, ratio, statistics=statistics, calibration=calibration)
        assert plan.compensation != "none"
        assert len(plan.notes) == len(said)
        assert all(note.startswith(start) for note, start in zip(plan.notes, said, strict=True))


@pytest.mark.parametrize(
    ("method", "compensation", "said"),
    [
        ("shortgpt", "least_squares", "least_squares compensates removed width, sequential and linear_map compensate"),
        ("replaceme", "bias", "bias compensates removed width"),
        ("replaceme+least_squares", "auto", "least_squares compensates removed width"),
        ("flap", "linear_map", "the plan removes nothing that linear_map compensates"),
        ("shortgpt", "none", None),
        ("shortgpt", "auto", None),
        ("shortgpt", "sequential", None),
        ("flap", "least_squares", None),
    ],
)
def test_a_compensation_that_does_nothing_is_said(
    method: str, compensation: Any, said: str | None, tiny: TinyOf
) -> None:
    t = tiny("llama")
    options = PruningOptions(compensation=compensation)
    plan = make_pruning_plan(t.model, method, 0.25, statistics=t.statistics, calibration=t.calibration, options=options)
    off = [note for note in plan.notes if note.startswith("compensation is off: ")]
    if said is None:
        assert off == []
    else:
        assert plan.compensation == "none"
        assert len(off) == 1
        assert said in off[0]


def test_a_method_with_another_compensation(tiny: TinyOf) -> None:
    t = tiny("llama")
    assert "flap+sequential" in methods
    assert "flap+nothing" not in methods
    assert methods["flap+least_squares"].compensation == "least_squares"
    assert methods["flap"].compensation is None
    with pytest.raises(UnknownName, match="did you mean 'least_squares'"):
        _ = methods["flap+least_square"]
    plan = make_pruning_plan(t.model, "shortgpt+sequential", 0.25, statistics=t.statistics, calibration=t.calibration)
    assert (plan.compensation, plan.method) == ("sequential", "shortgpt+sequential")


def test_least_squares_needs_the_tokens_of_its_plan(tiny: TinyOf) -> None:
    t = tiny("llama")
    plan = make_pruning_plan(t.model, "flap+least_squares", 0.3, statistics=t.statistics, calibration=t.calibration)
    with pytest.raises(InvalidRequest, match="needs the calibration tokens"):
        pruned_model(t.model, plan, t.statistics)
    with pytest.raises(PlanMismatch, match="compensation was made from calibration"):
        pruned_model(t.model, plan, t.statistics, tiny_calibration(seed=1))
