"""Trackers, with stand-ins for the services' clients that have their methods' signatures."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from prunelab.errors import MissingRequirement
from prunelab.evaluation.records import Measurement
from prunelab.studies.config import study_config
from prunelab.studies.run import Measured, Run
from prunelab.studies.runner import check_study
from prunelab.studies.trackers import trackers
from prunelab.studies.trackers.mlflow import allowed
from prunelab.studies.tracking import tracked_cells


def measurement(method: str, value: float, metric: str = "pass@1", **more: Any) -> Measurement:
    return Measurement(
        model="m", method=method, ratio=0.2 * (method != "dense"), benchmark="humaneval", metric=metric, value=value,
        n=4, primary=metric == "pass@1", plan=None if method == "dense" else "p", **more,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    measured = [
        Measured(tmp_path / "a.json", [measurement("dense", 0.5), measurement("dense", 0.7, "pass@5")]),
        Measured(tmp_path / "b.json", [measurement("flap", 0.25, seed=1, shots=0)]),
    ]
    result = Run(tmp_path, study_config({"models": ["m"]}), measured)
    result.write()
    return result


class Client:
    """`mlflow.MlflowClient`, as far as it is used."""

    runs: dict[str, SimpleNamespace] = {}  # noqa: RUF012

    def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        pass

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        assert name == "prunelab"
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        return "7"

    def search_runs(
        self, experiment_ids: list[str], filter_string: str = "", run_view_type: int = 1, max_results: int = 1000,
        order_by: Any = None, page_token: str | None = None,
    ) -> list[SimpleNamespace]:  # fmt: skip
        assert experiment_ids == ["7"]
        return [
            run
            for run in self.runs.values()
            if f"tags.`prunelab.cell` = '{run.tags['prunelab.cell']}'" == filter_string
        ]

    def create_run(
        self, experiment_id: str, start_time: int | None = None, tags: Any = None, run_name: str | None = None
    ) -> SimpleNamespace:
        made = SimpleNamespace(
            info=SimpleNamespace(run_id=f"r{len(self.runs)}"), tags=tags, name=run_name, params={}, metrics={},
            files=[], ended=False,
        )  # fmt: skip
        self.runs[made.info.run_id] = made
        return made

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        self.runs[run_id].params[key] = value

    def log_metric(
        self, run_id: str, key: str, value: float, timestamp: int | None = None, step: int | None = None,
        synchronous: bool | None = None,
    ) -> None:  # fmt: skip
        self.runs[run_id].metrics[key] = value

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        self.runs[run_id].files.append(Path(local_path).name)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        self.runs[run_id].ended = True


def installed(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_mlflow_has_a_run_a_cell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "runs", {})
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    installed(monkeypatch, "mlflow", MlflowClient=Client)
    for _ in range(2):  # sent twice, it stands there once
        trackers["mlflow"].log(tracked_cells(run))
    dense, flap = Client.runs.values()
    assert (dense.name, flap.name) == ("m", "m flap 20% seed 1")
    assert dense.metrics == {"humaneval/pass_1": 0.5, "humaneval/pass_5": 0.7}
    assert flap.metrics == {"humaneval 0-shot/pass_1": 0.25}
    assert flap.params == {
        "model": "m", "method": "flap", "ratio": "0.2", "seed": "1", "plan": "p", "achieved_ratio": "0.0"
    }  # fmt: skip
    assert set(flap.files) == {"results.csv"}
    assert flap.ended


def test_mlflows_names() -> None:
    assert allowed("gsm8k 5-shot/exact_match,flexible-extract") == "gsm8k 5-shot/exact_match_flexible-extract"


class WandbRun:
    """What `wandb.init` gives."""

    def __init__(self, **given: Any) -> None:
        self.given, self.summary, self.artifacts, self.finished = given, dict[str, float](), list[Any](), False

    def __enter__(self) -> WandbRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.finished = True

    def log_artifact(self, artifact_or_path: Any, name: str | None = None, type: str | None = None) -> None:  # noqa: A002
        self.artifacts.append(artifact_or_path)


class Artifact:
    """`wandb.Artifact`."""

    def __init__(self, name: str, type: str, description: str | None = None) -> None:  # noqa: A002
        self.name, self.type, self.files = name, type, list[str]()

    def add_file(self, local_path: str, name: str | None = None) -> None:
        self.files.append(Path(local_path).name)


def test_wandb_has_a_run_a_cell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[WandbRun] = []

    def init(
        entity: str | None = None, project: str | None = None, dir: Any = None, id: str | None = None,  # noqa: A002
        name: str | None = None, notes: str | None = None, tags: Any = None, config: Any = None,
        allow_val_change: bool | None = None, group: str | None = None, job_type: str | None = None,
        mode: str | None = None, reinit: Any = None, resume: Any = None,
    ) -> WandbRun:  # fmt: skip
        begun.append(WandbRun(project=project, id=id, name=name, config=config, group=group, resume=resume))
        return begun[-1]

    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    installed(monkeypatch, "wandb", init=init, Artifact=Artifact)
    trackers["wandb"].log(tracked_cells(run))
    trackers["wandb"].log(tracked_cells(run))
    dense, flap, again, _ = begun
    assert dense.given["id"] == again.given["id"] != flap.given["id"]
    assert not set(dense.given["id"]) & set("/\\#?%:")
    assert (dense.given["project"], dense.given["group"]) == ("prunelab", run.folder.name)
    assert dense.given["resume"] == "allow"
    assert flap.given["config"]["method"] == "flap"
    assert flap.summary == {"humaneval 0-shot/pass@1": 0.25}
    assert flap.artifacts[0].files == ["results.csv"]
    assert dense.finished


@pytest.mark.parametrize("name", [*trackers])
def test_a_missing_client_is_said_before_anything_is_computed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunelab.studies.trackers.base.find_spec", lambda package: None)
    config = study_config({"models": ["gone"], "trackers": [name], "out": str(tmp_path / "run")})
    with pytest.raises(MissingRequirement, match=rf"pip install 'prunelab\[{name}\]'") as error:
        check_study(config)
    assert "\n" not in str(error.value)
