"""Several numbers of shots, and suites: on the command line, in a study, and in its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import Ran

from prunelab.errors import InvalidRequest, UnknownName
from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.evaluation.benchmarks.suites import expand, suites
from prunelab.evaluation.runner import benchmark_tasks
from prunelab.reports import write_report
from prunelab.reports.tables import main_table
from prunelab.studies.config import study_config
from prunelab.studies.runner import run_study

Command = Callable[..., Ran]
CheckpointOf = Callable[[str], Path]


def test_a_benchmark_without_shots_is_run_once() -> None:
    runs = benchmark_tasks(["arc_easy", "wikitext2", "ifeval"], EvaluationSettings(), [0, 5, 5])
    assert [(benchmark.name, settings.shots) for benchmark, settings in runs] == [
        ("arc_easy", 0), ("arc_easy", 5), ("wikitext2", None), ("ifeval", None),
    ]  # fmt: skip
    assert [settings.shots for _, settings in benchmark_tasks(["gsm8k"], EvaluationSettings())] == [None]


def test_several_shots_are_each_measured_and_printed(
    command: Command, tiny_checkpoint: CheckpointOf, miniature: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    arguments = ["--datasets-root", miniature, "--limit", 3, "--out", out, "--device", "cpu"]
    ran = command("evaluate", tiny_checkpoint("llama"), "--benchmark", "arc_easy", "--shots", "0,2", *arguments)
    assert ran.code == 0, ran
    rows = [row for row in json.loads(out.read_text()) if row["metric"] == "acc"]
    assert [(row["shots"], row["shots_from_validation"]) for row in rows] == [(0, False), (2, True)]
    assert "few-shot examples come from the validation split: there is no train split" in ran.out
    assert "limited to 3 documents" in ran.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--benchmark", "mmlu", "--shots", "0,6"],
            "does not support 6 shots, split dev has 5: give --shots from 0 to 5",
        ),
        (["--benchmark", "arc_easy", "--shots", "0;5"], "--shots 0;5 is not possible"),
        (["--benchmark", "arc_easy", "--shots", "-1"], "--shots -1 is not possible"),
        (["--suite", "papre"], "no suite is called 'papre': did you mean 'paper'"),
        (["--benchmark", "wino"], "no benchmark is called 'wino': did you mean 'winogrande'"),
        ([], "nothing to evaluate"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    arguments: list[str], text: str, command: Command, miniature: Path, tmp_path: Path
) -> None:
    ran = command("evaluate", tmp_path / "no-model-is-needed", *arguments, "--datasets-root", miniature)
    assert ran.code == 2
    assert text in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_study_keeps_the_shots_apart(tiny_checkpoint: CheckpointOf, miniature: Path, tmp_path: Path) -> None:
    given = {
        "models": [str(tiny_checkpoint("llama"))], "methods": ["magnitude_depth"], "ratios": [0.25], "limit": 4,
        "benchmarks": ["winogrande", "wikitext2"], "shots": [0, 2], "device": "cpu", "out": str(tmp_path / "run"),
        "datasets_root": str(miniature),
    }  # fmt: skip
    said: list[str] = []
    result = run_study(study_config(given), say=said.append)
    write_report(result)
    assert not result.failures
    files = sorted(path.name for path in (tmp_path / "run/cells").glob("*dense*/*.json"))
    assert [name.split("-")[0] for name in files] == ["wikitext2", "winogrande", "winogrande"]
    assert len(list((tmp_path / "run/cells").glob("*/*.samples.parquet"))) == 6
    frame = pd.read_csv(tmp_path / "run/results.csv")
    shots = frame[(frame.benchmark == "winogrande") & frame.primary].groupby("method").shots.apply(list)
    assert shots.to_dict() == {"dense": [0, 2], "magnitude_depth": [0, 2]}
    table = main_table(result.measurements)
    assert table.columns[-3:] == ["winogrande 0-shot acc", "winogrande 2-shot acc", "wikitext2 perplexity"]
    for row, cut in zip(table.rows, ("dense", "magnitude_depth"), strict=True):
        own = [m for m in result.measurements if m.method == cut and m.primary]
        assert row[-3:-1] == [f"{m.value:.3f}" for m in own[:2]]
    assert any("winogrande 2-shot acc" in line for line in said)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunelab.studies.model_runner.evaluate", lambda *_, **__: pytest.fail("computed again"))
        run_study(study_config({**given, "shots": [2]}), say=said.append)


def test_a_suite_on_the_command_line_replaces_the_files_benchmarks(
    command: Command, tiny_checkpoint: CheckpointOf, miniature: Path, tmp_path: Path
) -> None:
    config = tmp_path / "study.yaml"
    config.write_text("methods: []\nbenchmarks: [throughput]\nlimit: 1\ndevice: cpu\n")
    arguments = ["--model", tiny_checkpoint("llama"), "--out", tmp_path / "run", "--datasets-root", miniature]
    ran = command("study", config, "--suite", "commonsense", "--shots", "1", *arguments)
    assert ran.code == 0, ran
    frame = pd.read_csv(tmp_path / "run/results.csv")
    assert set(frame.benchmark) == set(suites["commonsense"].benchmarks)
    assert set(frame.shots) == {1}
    assert "no suite is called" in command("study", config, "--suite", "x", *arguments).err


def test_suites_are_spelled_out() -> None:
    assert suites["paper"].benchmarks == (
        "arc_easy", "arc_challenge", "boolq", "winogrande", "mmlu", "gsm8k", "wikitext2", "humaneval", "ifeval",
        "stereoset", "throughput",
    )  # fmt: skip
    assert expand(["commonsense"], ["boolq", "gsm8k"]) == (
        ["arc_easy", "arc_challenge", "boolq", "winogrande", "gsm8k"],
        None,
    )
    assert expand(["commonsense", "quick"], [])[1] == 100
    with pytest.raises(UnknownName):
        expand(["qick"], [])
    for suite in (suites["commonsense"], suites["quick"]):
        assert all(name in benchmarks for name in suite.benchmarks)


def test_a_studys_suites_and_their_limit() -> None:
    base = {"models": ["m"]}
    quick = study_config({**base, "suites": "quick"})
    assert quick.benchmarks == suites["quick"].benchmarks
    assert quick.limit == 100
    assert study_config(quick.model_dump(mode="json")) == quick, "what is written down reads back"
    assert study_config({**base, "suites": ["quick"], "limit": 7}).limit == 7
    both = study_config({**base, "suites": ["commonsense"], "benchmarks": ["gsm8k"]})
    assert both.benchmarks == (*suites["commonsense"].benchmarks, "gsm8k")
    assert both.limit is None
    with pytest.raises(InvalidRequest, match="no suite is called 'x'"):
        study_config({**base, "suites": ["x"]})
    with pytest.raises(InvalidRequest, match="shots"):
        study_config({**base, "shots": [-1]})


def test_suites_are_listed(command: Command) -> None:
    ran = command("list", "suites")
    assert ran.code == 0
    assert "commonsense" in ran.out
    ran = command("list", "benchmarks")
    assert "IFEval" in ran.out
    assert "shots" in ran.out
