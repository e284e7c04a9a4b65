"""Runs printed, compared and merged, on made-up results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Ran

from prunelab.errors import InvalidRequest
from prunelab.evaluation.records import CellId, Measurement
from prunelab.studies.compare import compare_runs
from prunelab.studies.config import study_config, write_config
from prunelab.studies.merge import merge_runs
from prunelab.studies.run import Measured, Run, compared_to_dense, load_run
from prunelab.studies.store import ResultsStore

Command = Callable[..., Ran]
Answers = Mapping[tuple[str, str], Sequence[int]]
ALL, FOUR = [1] * 10, [0] * 6 + [1] * 4


def made(folder: Path, answers: Answers, data: str = "d", seconds: float = 1.0, **config: Any) -> Run:
    """A run's folder: by method and benchmark, which of the samples were right."""
    fields = {"models": ["m"], "methods": ["flap"], "ratios": [0.2], "out": str(folder), **config}
    names = list(dict.fromkeys(benchmark for _, benchmark in answers))
    store = ResultsStore(folder)
    measured = []
    for (method, benchmark), right in answers.items():
        cut = {} if method == "dense" else {"ratio": 0.2, "achieved_ratio": 0.2, "seed": 0, "plan": f"plan-{method}"}
        cell = CellId(model="m", fingerprint="f", dtype="float32", method=method, **cut)
        share = sum(right) / len(right)
        row = Measurement(
            model="m", method=method, benchmark=benchmark, metric="acc", value=share, n=len(right), primary=True,
            standard_error=0.1, seconds=seconds, **cut,
        )  # fmt: skip
        identity = {"data": data, "limit": None}
        path = store.path(cell, benchmark, identity)
        store.write(path, cell, [row], [{"sample": str(i), "correct": bool(x)} for i, x in enumerate(right)], identity)
        measured.append(Measured(path, [row]))
    configuration = study_config({**fields, "benchmarks": names})
    write_config(folder / "study.yaml", configuration)
    Run(folder, configuration, measured, compared_to_dense(measured)).write()
    return load_run(folder)


def test_the_same_samples_are_compared_in_pairs(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {("dense", "boolq"): ALL, ("flap", "boolq"): ALL, ("flap", "arc_easy"): ALL})
    b = made(tmp_path / "b", {("dense", "boolq"): ALL, ("flap", "boolq"): FOUR, ("shortgpt", "boolq"): ALL})
    found = compare_runs(a, b)
    same, fell = found.both
    assert (same.difference, same.p) == (0, 1)
    assert fell.paired is not None
    assert fell.difference == pytest.approx(-0.6)
    assert fell.p == pytest.approx(2 * 0.5**6), "six lost, none gained"
    assert [(m.method, m.benchmark) for m in found.only_first] == [("flap", "arc_easy")]
    assert [(m.method, m.benchmark) for m in found.only_second] == [("shortgpt", "boolq")]


@pytest.mark.parametrize(
    ("right", "data", "why"),
    [(FOUR, "e", "different data"), (FOUR[:9], "d", "different samples (10 and 9, 9 in both)")],
)
def test_other_samples_are_compared_by_standard_errors(
    right: Sequence[int], data: str, why: str, tmp_path: Path
) -> None:
    a = made(tmp_path / "a", {("dense", "boolq"): ALL})
    (one,) = compare_runs(a, made(tmp_path / "b", {("dense", "boolq"): right}, data)).both
    assert one.paired is None
    assert one.why_unpaired == why
    assert one.standard_error == pytest.approx(0.1 * 2**0.5)
    assert one.p is not None
    assert one.p < 1e-4


def test_a_normal_differences_p(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {("dense", "boolq"): [1, 1, 1, 1, 0]})
    b = made(tmp_path / "b", {("dense", "boolq"): [1, 1, 1, 0, 0]}, "e")
    (one,) = compare_runs(a, b).both
    assert one.p == pytest.approx(0.1573, abs=1e-4), "two-sided, at the root of two standard errors"


def test_the_commands_print_tables(tmp_path: Path, command: Command) -> None:
    made(tmp_path / "a", {("dense", "boolq"): ALL, ("flap", "boolq"): ALL, ("flap", "arc_easy"): ALL})
    made(tmp_path / "b", {("dense", "boolq"): ALL, ("flap", "boolq"): FOUR})
    ran = command("results", tmp_path / "a")
    assert ran.code == 0, ran
    assert "boolq acc" in ran.out
    ran = command("results", tmp_path / "b", "--benchmark", "boolq")
    assert "m flap 20%" in ran.out
    assert "0.4" in ran.out
    ran = command("results", tmp_path / "a", "--csv", "--benchmark", "arc_easy")
    header, *rows = ran.out.splitlines()
    assert header.startswith("model,method,ratio,achieved_ratio,benchmark,metric,value")
    assert [row.split(",")[:5] for row in rows] == [["m", "flap", "0.2", "0.2", "arc_easy"]]
    ran = command("results", tmp_path / "a", "--benchmark", "bolq")
    assert ran.code == 2
    assert "did you mean 'boolq'? known are arc_easy, boolq" in ran.err
    ran = command("compare", tmp_path / "a", tmp_path / "b")
    assert ran.code == 0, ran
    assert "exact McNemar" in ran.out
    assert "m flap 20%: arc_easy" in ran.out
    assert command("results", tmp_path / "gone").code == 2


def test_two_runs_become_one(tmp_path: Path, command: Command) -> None:
    a = made(tmp_path / "a", {("dense", "boolq"): ALL, ("flap", "boolq"): FOUR})
    b = made(
        tmp_path / "b",
        {("dense", "boolq"): ALL, ("dense", "arc_easy"): ALL, ("flap", "arc_easy"): FOUR, ("shortgpt", "boolq"): ALL},
        seconds=9,
        methods=["flap", "shortgpt"],
        ratios=[0.2, 0.3],
    )
    ran = command("merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert ran.code == 0, ran
    c = load_run(tmp_path / "c")
    wanted = {(m.method, m.benchmark) for run in (a, b) for m in run.measurements}
    assert {(m.method, m.benchmark) for m in c.measurements} == wanted
    assert len(c.measurements) == len(wanted) == 5
    assert c.config.methods == ("flap", "shortgpt")
    assert c.config.models[0].benchmarks == ("boolq", "arc_easy")
    assert c.config.models[0].ratios == (0.2, 0.3)
    # flap's two tests are adjusted together: each had 2/64 alone
    adjusted = [d.comparison.p_adjusted for d in c.differences if d.measurement.method == "flap"]
    assert adjusted == pytest.approx([4 / 64, 4 / 64])
    assert len(pd.read_parquet(tmp_path / "c" / "results.parquet")) == 5
    assert all(one.samples is not None for one in c.measured)


def test_a_contradiction_is_refused_unless_one_run_is_preferred(tmp_path: Path, command: Command) -> None:
    a = made(tmp_path / "a", {("dense", "boolq"): ALL, ("flap", "boolq"): FOUR})
    b = made(tmp_path / "b", {("dense", "boolq"): ALL, ("flap", "boolq"): ALL})
    ran = command("merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert ran.code == 2
    assert "m flap 20%, boolq (0.4 and 1)" in ran.err
    assert "--prefer" in ran.err
    assert not (tmp_path / "c").exists()
    merged = merge_runs(a, b, tmp_path / "c", prefer=b)
    assert [m.value for m in merged.measurements] == [1, 1]
    other = made(tmp_path / "d", {("dense", "boolq"): FOUR}, "e")
    merged = merge_runs(a, other, tmp_path / "e", prefer=a)
    assert [m.value for m in merged.measurements] == [1, 0.4]
    assert len(list((tmp_path / "e").glob("cells/*/*.json"))) == 2


def test_runs_made_differently_are_not_mixed(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {("dense", "boolq"): ALL})
    b = made(tmp_path / "b", {("dense", "arc_easy"): ALL}, window=512)
    with pytest.raises(InvalidRequest, match=r"differ in window \(2048 and 512\)"):
        merge_runs(a, b, tmp_path / "c")
    c = made(tmp_path / "d", {("dense", "arc_easy"): ALL}, dtype="float32")
    with pytest.raises(InvalidRequest, match="m has dtype None in one run and float32 in the other"):
        merge_runs(a, c, tmp_path / "c")
    with pytest.raises(InvalidRequest, match="exists"):
        merge_runs(a, a, tmp_path / "b")
