"""Plan files from outside: what no model has is refused at once, on one line."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny
from hypothesis import given
from hypothesis import strategies as st

from prunelab.errors import PlanError
from prunelab.pruning.apply import make_pruning_plan
from prunelab.pruning.plan import PruningPlan, from_ranges
from prunelab.pruning.plan_summary import planned_cuts
from prunelab.pruning.unit_ranges import blocks_in, count_in

TinyOf = Callable[[str], Tiny]
Change = Callable[[dict[str, Any]], object]

CHANGES: dict[str, Change] = {
    "endless range": lambda p: p["blocks"][0].update(channels="0-99999999999"),
    "long range": lambda p: p["blocks"][0].update(channels="0-9999999"),
    "many long ranges": lambda p: p.update(
        blocks=[{"block": i, "key_value_groups": "0-1000000", "channels": "0-1000000"} for i in range(5000)]
    ),
    "descending": lambda p: p["blocks"][0].update(channels="9-3"),
    "overlapping": lambda p: p["blocks"][0].update(channels="0-9,5-12"),
    "not a range": lambda p: p["blocks"][0].update(channels="a-b"),
    "negative": lambda p: p["blocks"][0].update(channels="-3"),
    "huge text": lambda p: p["blocks"][0].update(channels="9" * 5000),
    "other digits": lambda p: p["blocks"][0].update(channels="٣"),
    "endless shapes": lambda p: p["base"]["shapes"][0].update(blocks="0-9999999"),
    "million blocks": lambda p: p["base"]["shapes"][0].update(blocks="0-999999"),
    "gap in shapes": lambda p: p["base"]["shapes"][0].update(blocks="0,2-4"),
    "shape twice": lambda p: p["base"]["shapes"].append(dict(p["base"]["shapes"][0])),
    "hidden 0": lambda p: p["base"]["shapes"][0].update(hidden=0),
    "hidden negative": lambda p: p["base"]["shapes"][0].update(hidden=-8),
    "head 0": lambda p: p["base"]["shapes"][0].update(head_dim=0),
    "queries 0": lambda p: p["base"]["shapes"][0].update(queries_per_group=0),
    "all widths 0": lambda p: p["base"]["shapes"][0].update(key_value_groups=0, channels=0),
    "huge width": lambda p: p["base"]["shapes"][0].update(channels=10**30),
    "huge parameters": lambda p: p["base"].update(parameters=10**30),
    "no parameters": lambda p: p["base"].update(parameters=0),
    "provenance list": lambda p: p.update(provenance=[1]),
    "provenance null": lambda p: p.update(provenance=None),
    "calibration text": lambda p: p["provenance"].update(calibration="wikitext2"),
    "calibration list": lambda p: p["provenance"].update(calibration=[["fingerprint", 1]]),
    "fingerprint list": lambda p: p["provenance"]["calibration"].update(fingerprint=[1]),
    "samples null": lambda p: p["provenance"]["calibration"].update(samples=None),
    "samples huge": lambda p: p["provenance"]["calibration"].update(samples=10**30),
    "seed text": lambda p: p["provenance"]["calibration"].update(seed="x"),
    "name list": lambda p: p["base"].update(name=["x"]),
    "blocks null": lambda p: p.update(blocks=None),
    "block text": lambda p: p.update(blocks=["x"]),
    "units null": lambda p: p["blocks"][0].update(channels=None),
    "ratio huge": lambda p: p.update(requested_ratio=1e300),
}


@pytest.fixture(scope="module")
def plan_text(tiny: TinyOf) -> str:
    t = tiny("llama")
    return make_pruning_plan(t.model, "flap", 0.25, statistics=t.statistics, calibration=t.calibration).to_json()


@pytest.mark.parametrize("name", CHANGES)
def test_a_plan_that_no_model_has_is_refused_at_once(name: str, plan_text: str, tmp_path: Path) -> None:
    fields = json.loads(plan_text)
    CHANGES[name](fields)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(fields))
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(PlanError) as caught:
        PruningPlan.load(path)
    assert not planned_cuts(tmp_path, {None}), "a report passes over it"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700
    assert time.process_time() - began < 5
    assert peak < 200e6


@pytest.mark.parametrize("text", ["", "null", "[]", '{"a": 1, "a": 2}', '{"format": 3}', "[" * 9999, "{'a': 1}"])
def test_a_file_that_is_no_plan(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError) as caught:
        PruningPlan.load(tmp_path / "plan.json")
    assert len(str(caught.value).splitlines()) == 1
    assert planned_cuts(tmp_path, {None}) == {}


def test_a_report_reads_the_same_fingerprint(plan_text: str, tmp_path: Path) -> None:
    plan = PruningPlan.model_validate_json(plan_text)
    plan.save(tmp_path / "plan.json")
    cut = planned_cuts(tmp_path, {plan.fingerprint})[plan.fingerprint]
    assert (cut.model, cut.requested_ratio, cut.parameters) == ("tiny-llama", 0.25, plan.base.parameters)
    kept = {block.block: block for block in plan.blocks}
    shares = [1 - len(kept[b].channels) / s.channels if b in kept else 1.0 for b, s in enumerate(plan.base.shapes)]
    assert list(cut.removed["channels"]) == pytest.approx(shares)


@given(st.text(st.sampled_from("0123456789,- "), max_size=12) | st.text(max_size=6))
def test_any_text_is_ranges_or_refused(text: str) -> None:
    try:
        units = from_ranges(text)
    except ValueError:
        return
    assert list(units) == sorted(set(units))
    assert len(units) == count_in(text)


def test_blocks_are_each_named_once() -> None:
    assert blocks_in(["0,2", "1"]) == [(0, 2), (1,)]
    for texts in (["0-2", "2"], ["1-2"], ["0-9999", "10000-10001"]):
        with pytest.raises(ValueError, match="block"):
            blocks_in(texts)
