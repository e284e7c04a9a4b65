"""The study end to end on tiny models, resumed, damaged and killed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Ran, byte_tokenizer, tiny_model

from prunelab.errors import InvalidRequest
from prunelab.reports import write_report
from prunelab.reports.tables import main_table
from prunelab.stats.paired_tests import Comparison
from prunelab.studies.comparison import Difference, adjusted
from prunelab.studies.config import read_config, study_config
from prunelab.studies.grid import study_grid
from prunelab.studies.run import Run, load_run
from prunelab.studies.runner import run_study
from prunelab.studies.store import Measurement, samples_beside

CheckpointOf = Callable[[str], Path]
METHODS = ["shortgpt", "flap", "hybrid", "random_depth", "random_width", "magnitude_depth", "magnitude_width"]


def fields(model: Path, corpus: Path, out: Path, **more: Any) -> dict[str, Any]:
    return {
        "models": [str(model)], "methods": METHODS, "ratios": [0.25, 0.5], "seeds": [0, 1],
        "benchmarks": [f"text:{corpus}"], "out": str(out), "device": "cpu",
        "calibration": {"corpus": str(corpus), "samples": 8, "sequence_length": 64, "held_out": 2}, **more,
    }  # fmt: skip


def run(**given: Any) -> Run:
    run = run_study(study_config(given), say=lambda line: None)
    write_report(run)
    return run


def test_the_grid_is_measured_and_written(tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path) -> None:
    result = run(**fields(tiny_checkpoint("llama"), corpus, tmp_path / "run"))
    assert not result.failures
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert list(frame.columns[:12]) == [
        "model", "method", "ratio", "achieved_ratio", "benchmark", "metric", "value", "standard_error", "n", "shots",
        "seed", "seconds",
    ]  # fmt: skip
    primary = frame[frame.primary]
    # dense; five methods that draw nothing and two that do, at two ratios
    assert len(primary) == 1 + 5 * 2 + 2 * 2 * 2
    assert set(primary.method) == {"dense", *METHODS}
    assert (frame[frame.method == "dense"].ratio == 0).all()
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "tiny-llama" in text
    assert "flap" in text
    columnar = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert list(columnar.columns) == list(frame.columns)
    for name in ("model", "method", "ratio", "metric", "value", "n"):
        assert columnar[name].tolist() == frame[name].tolist()
    compared = pd.read_csv(tmp_path / "run" / "comparisons.csv")
    assert len(compared) == len(primary) - 1, "every pruned cell against the dense one"
    assert compared.n.unique().tolist() == [20]
    assert ((compared.low <= compared.difference) & (compared.difference <= compared.high)).all()
    assert (tmp_path / "run" / "study.yaml").exists()
    assert len(list((tmp_path / "run" / "statistics").iterdir())) == 1, "one calibration for the whole grid"
    again = load_run(tmp_path / "run")
    assert again.measurements == result.measurements
    assert list(again.differences) == list(result.differences)
    assert again.config == result.config
    assert set(again.planned) == {m.plan for m in result.measurements} - {None}


def test_width_is_budgeted_at_what_depth_achieved(tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path) -> None:
    given = fields(tiny_checkpoint("llama"), corpus, tmp_path / "run", methods=["shortgpt", "flap"], ratios=[0.3])
    rows = {m.method: m for m in run(**given).measurements if m.primary}
    assert rows["shortgpt"].achieved_ratio == pytest.approx(0.25)
    assert rows["flap"].achieved_ratio == pytest.approx(0.25, abs=0.02)
    assert rows["flap"].ratio == rows["shortgpt"].ratio == 0.3
    free = {**given, "match_depth": False, "out": str(tmp_path / "free")}
    assert {m.method: m for m in run(**free).measurements}["flap"].achieved_ratio == pytest.approx(0.3, abs=0.02)


def test_a_second_run_computes_nothing(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = fields(tiny_checkpoint("llama"), corpus, tmp_path / "run")
    run(**given)
    before = (tmp_path / "run" / "results.csv").read_bytes()
    for name in ("model_runner.evaluate", "targets.pruned_model", "plans.make_pruning_plan"):
        monkeypatch.setattr(f"prunelab.studies.{name}", lambda *_, **__: pytest.fail("computed again"))
    assert not run(**given).failures
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


def test_another_seed_or_limit_is_another_measurement(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    given = fields(tiny_checkpoint("llama"), corpus, tmp_path / "run", methods=["flap"], ratios=[0.25])
    all_documents = {m.method: m for m in run(**given).measurements if m.primary}
    some = {m.method: m for m in run(**{**given, "limit": 3}).measurements if m.primary}
    assert all_documents["flap"].n == 20
    assert some["flap"].n == 3


def test_models_of_one_name_are_not_mixed(corpus: Path, tmp_path: Path) -> None:
    given = fields(tmp_path / "model", corpus, tmp_path / "run", methods=["flap"], ratios=[0.25])
    values = []
    for seed in (0, 1):
        tiny_model("llama", seed=seed).save_pretrained(tmp_path / "model")
        byte_tokenizer().save_pretrained(tmp_path / "model")
        values.append([m.value for m in run(**given).measurements])
    assert values[0] != values[1]


def test_a_failing_cell_is_recorded_and_the_grid_goes_on(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    given = fields(tiny_checkpoint("llama"), corpus, tmp_path / "run", methods=["shortgpt", "flap"], ratios=[0.05])
    result = run(**given)
    assert [f.cell for f in result.failures] == ["tiny-llama shortgpt 5%"]
    assert not result.failures[0].fault
    assert {m.method for m in result.measurements} == {"dense", "flap"}
    assert "removes nothing" in (tmp_path / "run" / "report" / "report.md").read_text()
    assert "removes nothing" in json.loads((tmp_path / "run" / "failures.json").read_text())[0]["error"]


def test_a_missing_model_does_not_stop_the_others(tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path) -> None:
    given = fields(tmp_path / "gone", corpus, tmp_path / "run", methods=["flap"], ratios=[0.25])
    given["models"] = [str(tmp_path / "gone"), str(tiny_checkpoint("llama"))]
    result = run(**given)
    assert len(result.failures) == 1
    assert {m.model for m in result.measurements} == {"tiny-llama"}


def test_a_missing_data_set_is_said_before_anything_is_computed(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    ran = command(
        "study", "--model", tiny_checkpoint("llama"), "--benchmark", "text:gone.txt", "--out", tmp_path / "run"
    )
    assert ran.code == 2
    assert "gone.txt does not exist" in ran.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": ["flap"]}, "method: unknown key; allowed keys are models, methods"),
        ({"ratios": [0.2, 1.5]}, "ratios: ratio 1.5 is not possible"),
        ({"methods": ["flapp"]}, "did you mean 'flap'"),
        ({"benchmarks": ["wikitext3"]}, "did you mean 'wikitext2'"),
        ({"models": []}, "models: .*at least 1"),
        ({"ratios": 0.2}, "ratios: 0.2 is not a list: give a list, such as"),
        ({"models": [{"path": "a", "name": "m"}, {"path": "b", "name": "m"}]}, "two models are named 'm'"),
        ({"suites": 5}, "suites: 5 is not a list of names"),
        ({"limit": 0}, "limit: 0 is not possible"),
        ({"pruning": {"unifrom": True}}, "pruning.unifrom: unknown key; allowed keys are protect_first"),
        ({"trackers": ["mlfow"]}, "trackers: .*did you mean 'mlflow'"),
        ({"dtype": "int8"}, "dtype: dtype 'int8' is not supported: give float32, bfloat16, float16"),
        ({"models": [{"path": "a", "ratios": [2]}]}, "models.0.ratios: ratio 2 is not possible"),
        ({"models": [{"path": "a", "benchmarks": ["bolq"]}]}, "models.0.benchmarks: .*did you mean 'boolq'"),
        ({"models": [{"path": "a", "shots": [-1]}]}, "models.0.shots.0: -1 is not possible"),
        ({"models": [{"path": "a", "benchmark_ratios": {"bolq": [0.1]}}]}, "did you mean 'boolq'"),
        (
            {"models": [{"path": "a", "batch": 2}]},
            "models.0.batch: unknown key; allowed keys are path, name, dtype, device",
        ),
        ({"calibration": {"samples": 0}}, "calibration.samples: 0 is not possible: give a whole number from 1"),
    ],
)
def test_bad_configurations(change: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match) as error:
        study_config({"models": ["x"], **change}, "grid.yaml")
    assert "\n" not in str(error.value)


def test_a_study_from_a_file_with_options_over_it(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        f"models: [{tiny_checkpoint('llama')}]\nmethods: [shortgpt]\nratios: [0.25]\nbenchmarks: ['text:{corpus}']\n"
        f"calibration: {{corpus: '{corpus}', samples: 8, sequence_length: 64, held_out: 2}}\ndevice: cpu\n"
    )
    ran = command("study", path, "--method", "random_depth", "--out", tmp_path / "run")
    assert ran.code == 0, ran
    assert "random_depth" in ran.out
    assert "shortgpt" not in ran.out
    assert "recommend" not in ran.out, "of baselines alone none is recommended"
    ran = command("study", path, "--out", tmp_path / "run")
    last = ran.out.splitlines()[-1]
    assert last.endswith(f": prunelab recommend {tmp_path / 'run'} --keep 95%")
    assert "command: prunelab prune" in command(*shlex.split(last.partition(": prunelab ")[2])).out
    (tmp_path / "bad.yaml").write_text("models: [x]\nratio: 0.2\n")
    assert (
        "bad.yaml, line 2: ratio: unknown key; allowed keys are models, methods"
        in command("study", tmp_path / "bad.yaml").err
    )
    (tmp_path / "worse.yaml").write_text("models: [x\n")
    assert "line 2: not YAML" in command("study", tmp_path / "worse.yaml").err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [x]\n\nmethod: [flap]\n", "grid.yaml, line 3: method: unknown key; allowed keys are models, methods"),
        ("models: [x]\nratios:\n - 0.2\n - 1.5\n", "grid.yaml, line 4: ratios: ratio 1.5 is not possible"),
        ("models: [x]\nseeds:\n - 0\n - -1\n", "grid.yaml, line 4: seeds.1: "),
        (
            "models:\n- path: x\n  benchmarks: [bolq]\n",
            "grid.yaml, line 3: models.0.benchmarks: no benchmark is called",
        ),
        (
            "models: [x]\nsuites: [papre]\n",
            "grid.yaml, line 2: suites: no suite is called 'papre': did you mean 'paper'",
        ),
        (
            "models: [x]\npruning:\n  unifrom: true\n",
            "grid.yaml, line 3: pruning.unifrom: unknown key; allowed keys are protect",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as error:
        study_config(read_config(path), "grid.yaml", path)
    assert str(error.value).startswith(message)
    with pytest.raises(InvalidRequest, match=r"^grid\.yaml: ratios: ratio 3 is not possible"):
        study_config({"models": ["x"], "ratios": [3.0]}, "grid.yaml", path)  # an option, not the file's


def test_a_model_has_its_own_ratios_shots_and_benchmarks(
    tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path
) -> None:
    entry = {
        "path": str(tiny_checkpoint("llama")), "name": "own", "dtype": "float32", "device": "cpu",
        "benchmarks": ["boolq", f"text:{corpus}"], "ratios": [0.25, 0.5], "benchmark_ratios": {"boolq": [0.5]},
        "shots": [1, 2],
    }  # fmt: skip
    given = fields(
        tiny_checkpoint("llama"), corpus, tmp_path / "run", models=[entry], methods=["magnitude_depth"], ratios=[0.75],
        seeds=[0], datasets_root=str(miniature), device="meta", limit=2,
    )  # fmt: skip
    result = run(**given)
    assert not result.failures, result.failures
    name = f"text:{corpus.name}"
    assert [(m.ratio, m.benchmark, m.shots) for m in result.measurements if m.primary] == [
        (0.0, "boolq", 1), (0.0, "boolq", 2), (0.0, name, None), (0.25, name, None),
        (0.5, "boolq", 1), (0.5, "boolq", 2), (0.5, name, None),
    ]  # fmt: skip


def test_a_models_own_chat_template_decides_its_prompts() -> None:
    config = study_config(
        {"models": ["x", {"path": "y", "chat_template": "always"}], "chat_template": "never", "benchmarks": ["boolq"]}
    )
    assert [cell.runs[0][1].chat_template for cell in study_grid(config) if cell.cut is None] == ["never", "always"]


def test_a_device_that_is_not_there_is_said_before_anything_is_computed(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    model = {"path": str(tiny_checkpoint("llama")), "device": "abacus"}
    with pytest.raises(InvalidRequest, match="device 'abacus' is not available"):
        run(**fields(tiny_checkpoint("llama"), corpus, tmp_path / "run", models=[model]))
    assert not (tmp_path / "run").exists()


def test_what_is_named_twice_is_measured_once() -> None:
    config = study_config({"models": ["x", "x"], "methods": ["flap", "flap"], "ratios": [0.4, 0.2, 0.4]})
    assert (len(config.models), config.methods, config.ratios) == (1, ("flap",), (0.4, 0.2))
    assert study_config({"models": ["x"], "calibration": "c4"}).calibration.corpus == "c4"


def test_the_main_table() -> None:
    def row(method: str, seed: int | None, value: float, metric: str = "token_perplexity") -> Measurement:
        return Measurement(
            model="m", method=method, ratio=0.2 * (method != "dense"), achieved_ratio=0.25 * (method != "dense"),
            benchmark="b", metric=metric, value=value, n=3, seed=seed, primary=True,
        )  # fmt: skip

    table = main_table(
        [row("dense", None, 10), row("random_width", 0, 20), row("random_width", 1, 24), row("flap", 0, 12)]
    )
    assert table.rows[1] == ["m", "random_width", "20%", "25.0%", "2", "22 ± 2.8"]
    assert table.rows[2] == ["m", "flap", "20%", "25.0%", "1", "12"]
    metric = "decode_tokens_per_second"
    speeds = main_table([row("dense", None, 50, metric), row("flap", 0, 60, metric)])
    assert speeds.rows[1][-1] == "1.20x"


def test_a_change_that_was_seen_is_marked() -> None:
    def cell(method: str, p: float) -> Difference:
        m = Measurement(
            model="m", method=method, ratio=0.2, benchmark="arc_easy", metric="acc", value=0.589, n=1172, seed=0,
            shots=0, primary=True,
        )  # fmt: skip
        comparison = Comparison(0.612, 0.589, -0.023, (-0.04, -0.006), p, 1172, "exact McNemar")
        return adjusted([Difference(m, True, comparison)])[0]

    seen, unseen = cell("flap", 0.003), cell("shortgpt", 0.4)
    assert seen.sentence().startswith("arc_easy 0-shot acc: fell from 61.2 to 58.9 % (-2.3, 95 % interval -4.0 to -0.6")
    assert "no significant change (n = 1172" in unseen.sentence()
    table = main_table([seen.measurement, unseen.measurement], [seen, unseen])
    assert [row[-1] for row in table.rows] == ["0.589*", "0.589"]


def test_p_values_are_adjusted_over_a_cells_benchmarks() -> None:
    m = Measurement(model="m", benchmark="b", metric="acc", value=0.5, n=10, primary=True)
    three = [Difference(m, True, Comparison(0.6, 0.5, -0.1, (-0.2, 0.0), p, 10, "t")) for p in (0.01, 0.04, 0.03)]
    assert [d.comparison.p_adjusted for d in adjusted(three)] == pytest.approx([0.03, 0.06, 0.06])


def test_stories260k_is_told_apart_from_its_prunings(shared: Path, tmp_path: Path) -> None:
    """Real weights: calibrated criteria beat chance, on the kind of text that the model knows."""
    sample = shared / "bench" / "tinystories_sample.txt"
    with pytest.warns(UserWarning, match="train split is missing"):
        result = run(
            models=[str(shared / "models" / "stories260K")],
            methods=["shortgpt", "flap", "random_depth", "random_width"],
            ratios=[0.2], seeds=[0, 1, 2, 3, 4], benchmarks=[f"text:{sample}"], device="cpu", out=str(tmp_path / "run"),
            calibration={"corpus": "wikitext2", "samples": 32, "sequence_length": 256, "held_out": 4},
            datasets_root=str(shared / "hub"),
        )  # fmt: skip
    assert not result.failures
    rows = [m for m in result.measurements if m.primary]

    def mean(method: str) -> float:
        values = [m.value for m in rows if m.method == method]
        return sum(values) / len(values)

    assert mean("dense") == pytest.approx(3.548, abs=0.01)  # mean loss 1.27, as the model's makers trained it
    assert mean("dense") < mean("flap") < mean("random_width")
    assert mean("dense") < mean("shortgpt") < mean("random_depth")


def test_cuts_that_are_the_same_model_are_measured_once(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    """Of a tiny model's four blocks a random half is one of six: two of eight seeds are alike, and shortgpt's too."""
    given = fields(tiny_checkpoint("llama"), corpus, tmp_path / "run")
    given |= {"methods": ["random_depth", "shortgpt"], "ratios": [0.5], "seeds": list(range(8))}
    said: list[str] = []
    result = run_study(study_config(given), say=said.append)
    write_report(result)
    assert not result.failures
    by_plan: dict[str | None, list[Measurement]] = {}
    for one in result.measured:
        by_plan.setdefault(one.primary.plan, []).append(one.primary)
    assert len(result.measured) == 10
    assert max(map(len, by_plan.values())) > 1
    for same in by_plan.values():
        assert len({m.value for m in same}) == 1
        assert [m.seconds for m in same[1:]] == [0.0] * (len(same) - 1)
        assert len({(m.method, m.seed) for m in same}) == len(same)
    assert len({pd.read_parquet(samples_beside(one.path)).to_json() for one in result.measured}) == len(by_plan)
    lines = [line for line in said if "same model as" in line]
    assert len(lines) == 10 - len(by_plan)
    assert "duplicate cuts, measured once" in (tmp_path / "run" / "report" / "report.md").read_text()
