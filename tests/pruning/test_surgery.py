"""Oracles over every method and family: the cut model computes what the whole one computes with its units masked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import VARIANTS, Tiny
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel

from prunelab.calibration import ActivationStatistics, calibrate
from prunelab.checkpoint.save import save_checkpoint
from prunelab.errors import InvalidRequest
from prunelab.models.families import Decoder, decoder_of
from prunelab.models.loading import LanguageModel, load_model
from prunelab.pruning.allocation import Constraints, KeptUnits
from prunelab.pruning.apply import PruningOptions, make_pruning_plan, pruned_model
from prunelab.pruning.compensation import COMPENSATORS
from prunelab.pruning.compensation.projection import Repairs
from prunelab.pruning.methods import methods
from prunelab.pruning.plan import PruningPlan, make_plan
from prunelab.pruning.surgery import cut

TinyOf = Callable[[str], Tiny]
IDS = torch.randint(256, (2, 21), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor = IDS) -> Tensor:
    out: Tensor = model(input_ids=ids).logits
    return out


def auto_class(t: Tiny) -> Any:
    """What stock transformers loads a checkpoint of this family with."""
    return getattr(transformers, t.model.decoder.family.auto_class)


def masked(
    decoder: Decoder, kept: KeptUnits, statistics: ActivationStatistics | None, repairs: Repairs | None = None
) -> PreTrainedModel:
    """The whole model with removed units silenced, removed blocks passed by, biases added, projections repaired."""
    model = copy.deepcopy(decoder.model)
    blocks = decoder_of(model).blocks
    for index, block in enumerate(blocks):
        if index not in kept.blocks:
            block.register_forward_hook(lambda m, i, o: i[0])
            continue
        position = kept.blocks.index(index)
        for layout, units in zip(
            decoder.family.layouts(), (kept.key_value_groups[position], kept.channels[position]), strict=True
        ):
            shape = decoder.shapes[index]
            gone = [u for u in range(shape.units(layout.part)) if u not in units]
            columns = layout.columns(shape, gone)
            output_projection = block.get_submodule(layout.output_projection)
            assert isinstance(output_projection, nn.Linear)
            bias = torch.zeros(shape.hidden)
            if statistics is not None and gone:
                mean = statistics.of(layout.unit)[index].mean[columns]
                bias = (output_projection.weight[:, columns].double() @ mean).float()
            repair = (repairs or {}).get((index, layout.output_projection))
            with torch.no_grad():
                output_projection.weight[:, columns] = 0
                if repair is not None:
                    output_projection.weight[:, layout.columns(shape, units)] = repair.weight
                    said = torch.zeros(shape.hidden) if repair.bias is None else repair.bias
                    bias = (
                        said if output_projection.bias is None or repair.bias is None else said - output_projection.bias
                    )
            output_projection.register_forward_hook(lambda m, i, o, bias=bias: o + bias)
            if repair is not None and repair.behind_norm is not None:
                norm = block.get_submodule(decoder.family.residual_output(layout.output_projection))
                norm.register_forward_hook(lambda m, i, o, map_=repair.behind_norm: o @ map_.T)
    return model


def assert_generates_alike_with_and_without_cache(model: PreTrainedModel) -> None:
    arguments = {"max_new_tokens": 14, "min_new_tokens": 14, "do_sample": False, "pad_token_id": 0}
    with_cache = model.generate(IDS, use_cache=True, **arguments)
    assert torch.equal(with_cache, model.generate(IDS, use_cache=False, **arguments))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", methods)
def test_pruning_nothing_is_bit_identical(method: str, variant: str, tiny: TinyOf) -> None:
    t = tiny(variant)
    plan = make_pruning_plan(t.model, method, 0.0, statistics=t.statistics, calibration=t.calibration)
    pruned = pruned_model(t.model, plan, t.statistics, t.calibration)
    assert type(pruned.model) is type(t.model.model)
    assert torch.equal(logits(pruned.model), logits(t.model.model))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", methods)
def test_cut_equals_masked_and_survives_its_checkpoint(method: str, variant: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(variant)
    before = logits(t.model.model)
    plan = make_pruning_plan(t.model, method, 0.4, statistics=t.statistics, calibration=t.calibration)
    pruned = pruned_model(t.model, plan, t.statistics, t.calibration)
    compensated = t.statistics if plan.compensation == "bias" else None
    repairs = None
    if plan.compensation in COMPENSATORS:
        repairs = COMPENSATORS[plan.compensation](t.model.decoder, plan.kept, t.calibration, None)
    expected = logits(masked(t.model.decoder, plan.kept, compensated, repairs))
    assert (logits(pruned.model) - expected).abs().max() <= 1e-5
    assert torch.equal(logits(t.model.model), before), "the model given must be left as it was"
    assert_generates_alike_with_and_without_cache(pruned.model)
    save_checkpoint(pruned, plan, tmp_path / "out")
    assert torch.equal(logits(load_model(str(tmp_path / "out"), device="cpu").model), logits(pruned.model))


@pytest.mark.parametrize("variant", ["llama", "qwen2", "gemma2", "mistral_window"])
@pytest.mark.parametrize("first", ["shortgpt", "flap"])
@pytest.mark.parametrize("second", ["shortgpt", "flap"])
def test_a_pruned_model_is_pruned_again(first: str, second: str, variant: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(variant)
    plan = make_pruning_plan(t.model, first, 0.3, statistics=t.statistics, calibration=t.calibration)
    save_checkpoint(pruned_model(t.model, plan, t.statistics), plan, tmp_path / "once")
    once = load_model(str(tmp_path / "once"), device="cpu")
    statistics = calibrate(once.decoder, t.calibration)
    again = make_pruning_plan(once, second, 0.35, statistics=statistics, calibration=t.calibration)
    twice = pruned_model(once, again, statistics)
    expected = logits(masked(once.decoder, again.kept, statistics if again.compensation == "bias" else None))
    assert (logits(twice.model) - expected).abs().max() <= 1e-5
    save_checkpoint(twice, again, tmp_path / "twice")
    reloaded = load_model(str(tmp_path / "twice"), device="cpu")
    assert torch.equal(logits(reloaded.model), logits(twice.model))
    assert_generates_alike_with_and_without_cache(reloaded.model)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "case", ["attention of block 0", "attention everywhere", "one group left", "mlp of block 1", "both of block 0"]
)
def test_whole_sublayers_can_go(case: str, variant: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(variant)
    decoder = t.model.decoder
    whole = KeptUnits.everything(decoder.shapes)
    groups, channels = list(whole.key_value_groups), list(whole.channels)
    if case == "attention everywhere":
        groups = [() for _ in groups]
    elif case == "one group left":
        groups[1] = (2,)
    elif case == "mlp of block 1":
        channels[1] = ()
    else:
        groups[0] = ()
        channels[0] = () if case.startswith("both") else channels[0]
    kept = KeptUnits(whole.blocks, tuple(groups), tuple(channels))
    pruned = cut(decoder, kept, "bias", t.statistics)
    assert (logits(pruned) - logits(masked(decoder, kept, t.statistics))).abs().max() <= 1e-5
    assert_generates_alike_with_and_without_cache(pruned)
    plan = _plan(t.model, kept)
    save_checkpoint(t.model.with_model(pruned), plan, tmp_path / "out")
    reloaded = load_model(str(tmp_path / "out"), device="cpu").model
    assert torch.equal(logits(reloaded), logits(pruned))
    assert_generates_alike_with_and_without_cache(reloaded)


def _plan(model: LanguageModel, kept: KeptUnits) -> PruningPlan:
    return make_plan(
        model.decoder, kept, name=model.name, fingerprint=model.fingerprint, method="by hand", ratio=0.1,
        compensation="bias",
    )  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", ["flap", "magnitude_width", "hybrid"])
def test_uniform_widths_load_with_the_stock_class(method: str, variant: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(variant)
    options = PruningOptions(uniform=True)
    plan = make_pruning_plan(t.model, method, 0.3, statistics=t.statistics, calibration=t.calibration, options=options)
    pruned = pruned_model(t.model, plan, t.statistics)
    compensated = t.statistics if plan.compensation == "bias" else None
    assert (logits(pruned.model) - logits(masked(t.model.decoder, plan.kept, compensated))).abs().max() <= 1e-5
    save_checkpoint(pruned, plan, tmp_path / "out")
    assert not (tmp_path / "out" / "modeling_prunelab.py").exists()
    stock = auto_class(t).from_pretrained(tmp_path / "out")
    assert torch.equal(logits(stock), logits(pruned.model))
    if variant in ("qwen2", "mistral") and len(plan.blocks) == 4:
        assert isinstance(stock, LlamaForCausalLM)
        assert plan.compensation == "bias"
    if variant in ("gemma2", "qwen2_window", "mistral_window") and method == "flap":
        assert plan.compensation == "none"
        assert any("compensation is off" in note for note in plan.notes)


def test_uniform_with_a_bias_that_the_stock_class_lacks_brings_the_modelling_file(tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("gemma2")
    options = PruningOptions(uniform=True, compensation="bias")
    plan = make_pruning_plan(t.model, "flap", 0.3, statistics=t.statistics, options=options)
    save_checkpoint(pruned_model(t.model, plan, t.statistics), plan, tmp_path / "out")
    assert plan.compensation == "bias"
    assert (tmp_path / "out" / "modeling_prunelab.py").exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mixed_checkpoint_loads_with_its_modelling_file(variant: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(variant)
    options = PruningOptions(Constraints(drop_sublayers=True))
    plan = make_pruning_plan(t.model, "flap", 0.4, statistics=t.statistics, options=options)
    pruned = pruned_model(t.model, plan, t.statistics)
    save_checkpoint(pruned, plan, tmp_path / "out")
    loaded = auto_class(t).from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(loaded).__module__.startswith("transformers_modules")
    assert torch.equal(logits(loaded), logits(pruned.model))
    assert_generates_alike_with_and_without_cache(loaded)


def test_layer_types_stay_with_their_blocks(tiny: TinyOf) -> None:
    t = tiny("gemma2")
    kept = KeptUnits.everything(t.model.decoder.shapes).without_blocks([0])
    pruned = cut(t.model.decoder, kept)
    assert t.model.model.config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert pruned.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert [block.get_submodule("self_attn").layer_idx for block in decoder_of(pruned).blocks] == [0, 1, 2]


def test_untouched_weights_are_shared(tiny: TinyOf) -> None:
    t = tiny("llama")
    kept = KeptUnits.everything(t.model.decoder.shapes).without_blocks([1])
    pruned = cut(t.model.decoder, kept)
    assert pruned.lm_head.weight.data_ptr() == t.model.model.lm_head.weight.data_ptr()


def test_tied_embeddings_stay_tied(tiny: TinyOf) -> None:
    t = tiny("qwen2")
    pruned = cut(t.model.decoder, KeptUnits.everything(t.model.decoder.shapes).without_blocks([1]))
    assert pruned.lm_head.weight is pruned.model.embed_tokens.weight


@pytest.mark.parametrize("number_format", ["bfloat16", "float16"])
def test_half_precision_is_kept(
    number_format: str, tiny: TinyOf, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    base = load_model(str(tiny_checkpoint("llama")), device="cpu", dtype=number_format)
    statistics = calibrate(base.decoder, tiny("llama").calibration)
    plan = make_pruning_plan(base, "flap", 0.3, statistics=statistics)
    pruned = pruned_model(base, plan, statistics)
    assert pruned.dtype == number_format
    save_checkpoint(pruned, plan, tmp_path / "out")
    reloaded = load_model(str(tmp_path / "out"), device="cpu")
    assert reloaded.dtype == number_format
    assert torch.equal(logits(reloaded.model), logits(pruned.model))


def test_compensation_without_statistics_is_refused(tiny: TinyOf) -> None:
    t = tiny("llama")
    with pytest.raises(InvalidRequest, match="needs calibration statistics"):
        cut(t.model.decoder, KeptUnits.everything(t.model.decoder.shapes), "bias")
