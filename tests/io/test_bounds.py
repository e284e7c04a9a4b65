"""Numbers from outside, through the commands, configurations and the Python API."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran
from hypothesis import given
from hypothesis import strategies as st

import prunelab
from prunelab.analysis.recommend import Need
from prunelab.errors import InvalidRequest, PrunelabError
from prunelab.evaluation.benchmarks import EvaluationSettings
from prunelab.io.bounds import CALIBRATION, CONSTRAINTS, EVALUATION, TEMPERATURE, Bounds
from prunelab.pruning.allocation import Constraints, check_ratio
from prunelab.pruning.apply import CalibrationOptions
from prunelab.pruning.planner import PruningOptions
from prunelab.studies.config import read_config, study_config

Command = Callable[..., Ran]
WRONG: list[Any] = [10**30, -(10**30), -1, math.nan, math.inf, -math.inf, 1e-310, "3", True, [1], 10**5000]
OF: dict[Callable[..., Any], dict[str, Bounds]] = {
    EvaluationSettings: EVALUATION,
    CalibrationOptions: CALIBRATION,
    Constraints: CONSTRAINTS,
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, bounds in OF.items() for name in bounds])
@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_what_is_out_of_bounds_is_refused_in_python(kind: Callable[..., Any], name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as error:
        kind(**{name: value})
    assert str(error.value).startswith(f"{name} ")
    assert "is not possible: give " in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, bounds in OF.items() for name in bounds])
def test_both_ends_are_possible(kind: Callable[..., Any], name: str) -> None:
    bounds = OF[kind][name]
    for end in (bounds.low, bounds.high):
        assert getattr(kind(**{name: end}), name) == end


@pytest.mark.parametrize("value", [*WRONG, None], ids=range(len(WRONG) + 1))
def test_ratios_seeds_and_needs(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        check_ratio(value)
    if value is not None:
        with pytest.raises(InvalidRequest):
            PruningOptions(seed=value)
        with pytest.raises(InvalidRequest):
            Need(weights={"boolq": value})
        with pytest.raises(InvalidRequest):
            Need(memory=value)


WRITTEN = ["1" + "0" * 30, "-1", ".nan", ".inf", "1e-310", "true", "[]", "x", "null", "1e400"]
FIELDS = ["limit", "window", "completions", "temperature", "seeds", "shots", "ratios"]
NESTED = [
    ("calibration", "samples"), ("calibration", "sequence_length"), ("calibration", "held_out"),
    ("pruning", "protect_first"), ("pruning", "protect_last"), ("pruning", "channel_multiple"),
    ("ray", "workers"), ("ray", "cpus_a_cell"), ("ray", "gpus_a_cell"),
]  # fmt: skip


@pytest.mark.parametrize(
    "written", ["1" + "0" * 30, "-1", ".nan", ".inf", "1e-310", "true", "[]", "x", "null", "1e400"]
)
@pytest.mark.parametrize("place", [*[(name,) for name in FIELDS], *NESTED], ids=".".join)
def test_what_is_refused_in_a_configuration(written: str, place: tuple[str, ...], tmp_path: Path) -> None:
    if written == "null" and place in (("limit",), ("ray", "workers")):
        pytest.skip("none is possible")
    value = f"[{written}]" if place[0] in ("seeds", "shots", "ratios") else written
    path = tmp_path / "study.yaml"
    line = f"{place[0]}: {value}" if len(place) == 1 else f"{place[0]}: {{{place[1]}: {value}}}"
    path.write_text(f"models: [pocket-llama]\n{line}\n")
    with pytest.raises(PrunelabError) as error:
        study_config(read_config(path), str(path), path)
    assert len(str(error.value).splitlines()) == 1
    assert "study.yaml" in str(error.value)


@pytest.mark.parametrize("arguments", [
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--limit", "1" + "0" * 30],
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--temperature", "1e-310"],
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--temperature", "nan"],
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--temperature", "1e400"],
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--seed", "-1"],
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--shots", "9" * 5000],
    ["evaluate", "pocket-llama", "--benchmark", "boolq", "--tokens-a-batch", "1" + "0" * 40],
    ["throughput", "pocket-llama", "--new-tokens", "1" + "0" * 30],
    ["throughput", "pocket-llama", "--prompt-tokens", "9" * 5000],
    ["prune", "pocket-llama", "--ratio", "nan"],
    ["prune", "pocket-llama", "--ratio=-inf"],
    ["prune", "pocket-llama", "--samples", "1" + "0" * 30],
    ["prune", "pocket-llama", "--protect-first", "1" + "0" * 30],
    ["prune", "pocket-llama", "--seed", "1" + "0" * 30],
    ["prune", "pocket-llama", "--memory", "1" + "0" * 30 + "GB"],
    ["study", "--model", "pocket-llama", "--limit", "1" + "0" * 30],
    ["study", "--model", "pocket-llama", "--temperature", "1e-310"],
    ["study", "--model", "pocket-llama", "--ratio", "nan"],
    ["study", "--model", "pocket-llama", "--seed=-1"],
    ["recommend", "--keep", "nan"],
    ["recommend", "--keep", "1e400%"],
    ["recommend", "--speedup", "inf"],
    ["recommend", "--speedup=-1"],
])  # fmt: skip
def test_what_is_refused_on_the_command_line(arguments: list[str], command: Command, tmp_path: Path) -> None:
    out = [] if arguments[0] == "recommend" else ["--out", tmp_path / "out"]
    ran = command(*arguments, *out)
    assert ran.code == 2, ran
    assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@given(st.floats(allow_nan=True) | st.integers())
def test_a_number_is_held_or_refused(value: float) -> None:
    for bounds in (Bounds(1, 5), Bounds(0.5, 5, whole=False), TEMPERATURE):
        if bounds.holds(value):
            bounds.check("x", value)
            assert math.isfinite(value)
        else:
            with pytest.raises(InvalidRequest, match="is not possible"):
                bounds.check("x", value)


def test_the_api_says_so_before_a_model_is_loaded() -> None:
    with pytest.raises(InvalidRequest, match="samples"):
        prunelab.prune("/no/such/model", samples=10**30)
    with pytest.raises(InvalidRequest, match="limit"):
        prunelab.evaluate("/no/such/model", "boolq", limit=10**30)
