from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Tiny, make_tiny
from hypothesis import given
from hypothesis import strategies as st

from prunelab.errors import PlanError, PlanMismatch
from prunelab.io.fingerprint import model_fingerprint
from prunelab.pruning.apply import make_pruning_plan, pruned_model
from prunelab.pruning.plan import PruningPlan, from_ranges, to_ranges

TinyOf = Callable[[str], Tiny]
GOLDEN = Path(__file__).parents[1] / "golden"


@given(st.sets(st.integers(0, 60)))
def test_ranges_round_trip(units: set[int]) -> None:
    assert from_ranges(to_ranges(sorted(units))) == tuple(sorted(units))


def test_ranges_are_readable() -> None:
    assert to_ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert to_ranges([]) == ""


def plan_of(t: Tiny, method: str = "flap", ratio: float = 0.25) -> PruningPlan:
    return make_pruning_plan(t.model, method, ratio, statistics=t.statistics, calibration=t.calibration)


@pytest.mark.parametrize("method", ["shortgpt", "flap", "hybrid", "random_width"])
def test_a_plan_survives_its_file(method: str, tiny: TinyOf, tmp_path: Path) -> None:
    plan = plan_of(tiny("llama"), method)
    plan.save(tmp_path / "p.json")
    assert PruningPlan.load(tmp_path / "p.json") == plan


def test_the_golden_plan(tiny: TinyOf) -> None:
    """What a plan file looks like; after a change on purpose write it anew with `python tests/golden/write.py`."""
    record = json.loads(plan_of(tiny("llama")).to_json())
    record["provenance"]["versions"] = {}
    golden = json.loads((GOLDEN / "plan.json").read_text())
    for plan in (record, golden):
        plan["base"]["fingerprint"] = ""  # random numbers differ between builds of torch
        plan["provenance"]["calibration"]["fingerprint"] = ""
    assert {k: v for k, v in record.items() if k != "blocks"} == {k: v for k, v in golden.items() if k != "blocks"}
    assert [set(b) for b in record["blocks"]] == [set(b) for b in golden["blocks"]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p["blocks"][0].update(channels="0-99"), "block 0: channels must be ascending numbers from 0 to 39"),
        (lambda p: p["blocks"][1].update(block=0), "blocks must be ascending"),
        (lambda p: p.update(achieved_ratio=0.5), "achieved_ratio is 0.5"),
        (lambda p: p.update(extra=1), "extra"),
        (lambda p: p.pop("method"), "method"),
        (lambda p: p.update(format="prunelab/plan/99"), "format"),
        (lambda p: p["blocks"][0].update(channels="0-x"), "channels"),
        (lambda p: p.update(blocks=[]), "at least one"),
        (lambda p: p["base"].update(parameters=1), "share_of_model is"),
        (lambda p: p.update(method="../evil"), "method"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, object]], object], match: str, tiny: TinyOf, tmp_path: Path
) -> None:
    record = json.loads(plan_of(tiny("llama")).to_json())
    change(record)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(record))
    with pytest.raises(PlanError, match=match) as error:
        PruningPlan.load(path)
    assert "\n" not in str(error.value)


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="does not exist"):
        PruningPlan.load(tmp_path / "none.json")
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(PlanError, match="not JSON"):
        PruningPlan.load(tmp_path / "p.json")
    (tmp_path / "p.json").write_text("[]")
    with pytest.raises(PlanError, match="holds a list, not a JSON object"):
        PruningPlan.load(tmp_path / "p.json")


def test_a_plan_for_another_model_is_refused_with_both_fingerprints(tiny: TinyOf) -> None:
    t, other = tiny("llama"), tiny("qwen2")
    plan = plan_of(t)
    with pytest.raises(PlanMismatch) as error:
        pruned_model(other.model, plan, other.statistics)
    assert t.model.fingerprint in str(error.value)
    assert other.model.fingerprint in str(error.value)


def test_fingerprints_tell_models_apart_but_not_number_formats() -> None:
    t = make_tiny("llama")
    in_float32 = t.model.fingerprint
    weight = t.model.model.lm_head.weight
    weight.data[0, 0] += 0.5
    assert model_fingerprint(t.model.model) != in_float32
    weight.data[0, 0] -= 0.5
    t.model.model.config.rms_norm_eps = 1e-3
    assert model_fingerprint(t.model.model) != in_float32
    half = make_tiny("llama").model.model.bfloat16()
    assert model_fingerprint(half) == model_fingerprint(half.float())


def test_shares_are_printed_of_the_blocks_and_of_the_whole(tiny: TinyOf) -> None:
    t = tiny("llama")
    plan = plan_of(t, "shortgpt")
    assert plan.achieved_ratio == pytest.approx(0.25)
    decoder = t.model.decoder
    assert plan.share_of_model == pytest.approx(decoder.cost / 4 / decoder.parameters)
