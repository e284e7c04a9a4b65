"""Second moments: collected with the statistics or in a pass of their own, they make the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Ran, Tiny, tiny_calibration
from safetensors.torch import load_file
from small_study import figures, run, small_study
from test_compensation import narrowed
from test_pairs import drawn

from prunelab.calibration import ActivationStatistics, CalibrationSet, calibrate
from prunelab.calibration import cache as model_statistics
from prunelab.calibration.cache import calibrated
from prunelab.models import memory
from prunelab.models.layout import BlockShape
from prunelab.models.memory import moments_bytes
from prunelab.models.streaming.model import open_streamed
from prunelab.pruning.compensation import least_squares
from prunelab.pruning.compensation.projection import CompensatedProjection
from prunelab.pruning.planner import PruningOptions, make_pruning_plan, needs_moments
from prunelab.pruning.search.layerwise import LayerwiseRunner
from prunelab.pruning.surgery import cut

TinyOf = Callable[[str], Tiny]
Repairs = dict[tuple[int, str], CompensatedProjection]


@pytest.fixture
def no_other_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, sending the calibration tokens through the blocks fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("another pass was begun")

    return lambda: monkeypatch.setattr(LayerwiseRunner, "of", refuse)


def distance(found: Repairs, other: Repairs) -> float:
    """The largest difference of a weight or bias, by the largest weight of its projection."""
    assert found.keys() == other.keys()
    differences = [0.0]
    for place, repair in found.items():
        another = other[place]
        assert repair.bias is not None
        assert another.bias is not None
        size = another.weight.abs().max()
        differences += [((repair.weight - another.weight).abs().max() / size).item()]
        differences += [((repair.bias - another.bias).abs().max() / size).item()]
    return max(differences)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_ways_repair_alike(variant: str, tiny: TinyOf, no_other_pass: Callable[[], None]) -> None:
    t = tiny(variant)
    decoder, kept = t.model.decoder, narrowed(t.model.decoder)
    ids, mask = t.calibration.token_ids, torch.ones_like(t.calibration.token_ids)
    mask[1::2, -7:] = 0
    sets = (CalibrationSet(ids), CalibrationSet(ids, mask))
    apart = [least_squares(decoder, kept, one) for one in sets]
    held = [calibrate(decoder, one, moments=True) for one in sets]
    no_other_pass()
    together = [least_squares(decoder, kept, *both) for both in zip(sets, held, strict=True)]
    assert set(together[0]) == {(1, "self_attn.o_proj"), (1, "mlp.down_proj"), (2, "mlp.down_proj")}
    assert distance(together[0], apart[0]) == 0, "without a mask, to the bit"
    assert distance(together[1], apart[1]) < 1e-4
    assert distance(together[0], together[1]) > 1e-3, "what is masked does not count"


def test_both_ways_repair_alike_on_images_with_text(
    tiny: TinyOf, tmp_path: Path, no_other_pass: Callable[[], None]
) -> None:
    t = tiny("idefics3")
    pairs, kept = drawn(t, tmp_path), narrowed(t.model.decoder)
    apart = least_squares(t.model.decoder, kept, pairs)
    held = calibrate(t.model.decoder, pairs, moments=True)
    no_other_pass()
    assert distance(least_squares(t.model.decoder, kept, pairs, held), apart) < 1e-4


def test_the_moments_are_the_covariance(tiny: TinyOf) -> None:
    """They agree with what the statistics say of each channel, and with numpy's of the activations themselves."""
    t = tiny("llama")
    held = calibrate(t.model.decoder, t.calibration, moments=True, tokens_a_batch=48)
    assert len(held.second) == 8
    for (block, unit), moments in held.second.items():
        own = held.of(unit)[block]
        assert moments.count == own.count == held.tokens
        assert torch.allclose(moments.inputs.diagonal(), own.deviations, rtol=1e-4)
        assert torch.allclose(moments.input_mean, own.mean, atol=1e-5)
    walk = LayerwiseRunner.of(t.model.decoder, t.calibration)
    seen = [one.inputs for one in walk.watch(0, walk.start, until="mlp.down_proj")]
    x = torch.cat([one.flatten(0, 1) for one in seen if one is not None]).double()
    assert torch.allclose(held.second[0, "channel"].inputs / (len(x) - 1), torch.cov(x.T), atol=1e-5)


def test_the_statistics_beside_them_are_the_same_file(tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("gemma2")
    plain, held = (calibrate(t.model.decoder, t.calibration, moments=moments) for moments in (False, True))
    assert not plain.second
    plain.save(tmp_path / "plain")
    held.save(tmp_path / "held")
    one, other = (load_file(tmp_path / name) for name in ("plain", "held"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not ActivationStatistics.load(tmp_path / "held").second


@pytest.mark.parametrize("method", ["auto", "flap+least_squares", "hybrid+least_squares"])
def test_a_plan_does_not_depend_on_the_way(method: str, tiny: TinyOf) -> None:
    t = tiny("llama")
    held = calibrate(t.model.decoder, t.calibration, moments=True)
    plans = [
        make_pruning_plan(t.model, method, 0.3, statistics=statistics, calibration=t.calibration)
        for statistics in (t.statistics, held)
    ]
    assert plans[0] == plans[1]
    ids = t.calibration.token_ids[:2]
    with torch.no_grad():
        one, other = (
            cut(t.model.decoder, plan.kept, plan.compensation, statistics, t.calibration)(input_ids=ids).logits
            for plan, statistics in zip(plans, (t.statistics, held), strict=True)
        )
    assert torch.equal(one, other)


def test_auto_looks_at_the_moments_that_are_held(tiny: TinyOf) -> None:
    """Were they others, its levels would be others: with the moments of noise, another cut is found."""
    t = tiny("llama")
    held = calibrate(t.model.decoder, t.calibration, moments=True)
    for moments in held.second.values():
        moments.inputs = torch.diag(torch.linspace(1, 1e4, len(moments.inputs), dtype=torch.float64))
    found = make_pruning_plan(t.model, "auto", 0.3, statistics=held, calibration=t.calibration)
    expected = make_pruning_plan(t.model, "auto", 0.3, statistics=t.statistics, calibration=t.calibration)
    assert found.provenance["tried"] != expected.provenance["tried"]


def test_moments_of_other_tokens_are_not_used(tiny: TinyOf) -> None:
    t = tiny("llama")
    kept = narrowed(t.model.decoder)
    others = calibrate(t.model.decoder, tiny_calibration(seed=1), moments=True)
    expected = least_squares(t.model.decoder, kept, t.calibration)
    assert distance(least_squares(t.model.decoder, kept, t.calibration, others), expected) == 0


def test_they_are_held_where_they_fit_and_are_of_use(
    tiny: TinyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t, path = tiny("llama"), tmp_path / "s.safetensors"
    size = moments_bytes(t.model.decoder.shapes)
    said: list[str] = []
    ran: list[int] = []

    def get(moments: bool, budget: int | None = None) -> ActivationStatistics:
        said.clear()
        ran.clear()
        return calibrated(t.model, t.calibration, path, ran.append, budget, said.append, moments)

    monkeypatch.setattr(model_statistics, "free_memory", lambda device: 4 * size - 1)
    assert not get(True).second
    assert ran == [6]
    assert "they take" in said[0]
    assert "least squares needs a separate pass for each cut" in said[0]
    monkeypatch.setattr(model_statistics, "free_memory", lambda device: 4 * size)
    assert not get(False).second
    assert (ran, said) == ([], [])
    kept = path.read_bytes()
    held = get(True)
    assert ran == [6], "files hold no moments"
    assert "in a separate pass, because the other statistics are cached" in said[0]
    assert (len(held.second), path.read_bytes()) == (8, kept)
    assert not get(True, budget=4 * size).second, "of what it may take, the process holds more already"
    path.unlink()
    assert len(get(True, budget=10**12).second) == 8
    assert ran == [6]
    assert "in the same pass" in said[0]


def test_a_model_on_the_disk_never_holds_them(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    said: list[str] = []
    model, path = open_streamed(str(tiny_checkpoint("llama"))), tmp_path / "s.safetensors"
    found = calibrated(model, tiny_calibration(), path, note=said.append, moments=True)
    assert not found.second
    assert "is read block by block" in said[0]


def test_what_they_take_of_llama_3_8b() -> None:
    """32 blocks of 14336^2 and 4096^2 numbers: more than three times the 16 GB of its weights."""
    assert moments_bytes([BlockShape(4096, 8, 4, 128, 14336)] * 32) == 32 * 8 * (14336**2 + 4096**2)
    assert memory.format_bytes(moments_bytes([BlockShape(4096, 8, 4, 128, 14336)] * 32)) == "56.9 GB"


@pytest.mark.parametrize(
    ("method", "compensation", "needed"),
    [
        ("flap", "auto", False), ("flap", "least_squares", True), ("flap+least_squares", "auto", True),
        ("flap+least_squares", "none", False), ("flap+sequential", "auto", False), ("auto", "none", True),
        ("shortgpt+least_squares", "auto", False), ("sublayer", "least_squares", True),
    ],
)  # fmt: skip
def test_who_has_use_for_them(method: str, compensation: Any, needed: bool) -> None:
    assert needs_moments(method, PruningOptions(compensation=compensation)) == needed


def test_cells_of_a_study_share_them(
    tiny_checkpoint: Callable[[str], Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass for all cells, whoever is first; where there is no room, the same figures by other passes."""
    passes: list[bool] = []
    plain = calibrate

    def counted(*given: Any, moments: bool = False, **options: Any) -> ActivationStatistics:
        passes.append(moments)
        return plain(*given, moments=moments, **options)

    monkeypatch.setattr(model_statistics, "calibrate", counted)
    given = small_study(tiny_checkpoint("llama"), corpus, tmp_path, tmp_path / "held")
    given |= {"methods": ["shortgpt", "flap+least_squares", "wanda_sp+least_squares"], "ratios": [0.25, 0.4]}
    given |= {"benchmarks": [f"text:{corpus}"]}
    held = run(given)
    assert passes == [True]
    for path in (tmp_path / "held" / "cells").glob("*least*/text*"):
        path.unlink()
    for path in (tmp_path / "held" / "plans").glob("*wanda*"):
        path.unlink()
    again = run(given)
    assert passes == [True, True], "what was killed goes on with moments of its own, once"
    monkeypatch.setattr(model_statistics, "MOMENTS_SHARE", 0.0)
    apart = run({**given, "out": str(tmp_path / "apart")})
    assert passes == [True, True, False]
    assert figures(again) == figures(held) == figures(apart)
    assert len(list((tmp_path / "held" / "statistics").iterdir())) == 1


def test_the_command_says_how_they_are_come_by(
    tiny_checkpoint: Callable[[str], Path], corpus: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    given = ("prune", tiny_checkpoint("llama"), "--calibration", corpus, "--samples", 4, "--sequence-length", 64)
    made = tmp_path / "made"
    ran = command(*given, "--method", "flap", "--compensation", "least_squares", "--out", made)
    assert "are collected in the same pass and held" in ran.out, ran
    ran = command(*given, "--method", "flap", "--out", tmp_path / "plain")
    assert "second moments" not in ran.out, ran
    ran = command(*given, "--plan", made / "pruning_plan.json", "--out", tmp_path / "again")
    assert "in a separate pass, because the other statistics are cached" in ran.out, ran
    one, other = (load_file(folder / "model.safetensors") for folder in (made, tmp_path / "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)
