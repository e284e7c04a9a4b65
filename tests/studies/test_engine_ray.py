"""Cells as Ray tasks: the local engine's figures, with workers lost on the way; one study at a time in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Ran
from small_study import figures, files, run, small_study

from prunelab.errors import InvalidRequest
from prunelab.io.folder_lock import holds, locked
from prunelab.studies.config import StudyConfig, study_config
from prunelab.studies.engines.cells import Event, SharedStep, Task, TaskResult, apply_event, run_task
from prunelab.studies.engines.ray import _lacking
from prunelab.studies.grid import study_grid, trunk_of
from prunelab.studies.progress import PlainView

CheckpointOf = Callable[[str], Path]


@pytest.fixture
def given(tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path: Path) -> dict[str, Any]:
    return small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path / "run")


class KillingView(PlainView):
    """Kills a worker that is at work when the first figure has come."""

    def __init__(self) -> None:
        self.said: list[str] = []
        super().__init__(self.said.append)
        self.killed: int | None = None

    def benchmark_done(self, *given: Any) -> None:
        if self.killed is None:
            import psutil

            below = psutil.Process().children(recursive=True)
            self.killed = next((p.pid for p in below if "_remotely" in p.name() + " ".join(p.cmdline())), None)
            if self.killed is not None:
                os.kill(self.killed, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore")
def test_two_workers_find_what_the_local_engine_finds_and_a_lost_one_is_made_up_for(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunelab[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = run(given)
    view = KillingView()
    there = {**given, "out": str(tmp_path / "ray"), "engine": "ray", "ray": {"workers": 2}}
    remote = run(there, view)
    assert view.killed, "a worker was lost"
    assert not any("one by one" in line for line in view.said), "what the worker was at was begun again"
    assert figures(remote) == figures(local)
    assert list(files(tmp_path / "ray")) == list(files(tmp_path / "run")), "nothing is lost or doubled"
    assert [d.comparison for d in remote.differences] == [d.comparison for d in local.differences]


class Lost(Exception):
    """As Ray's own where a worker is gone for good."""


@dataclass(eq=False)
class Reference:
    """To what a task has found, or to why it has not."""

    value: Any = None
    error: Exception | None = None


class Actor:
    """An object whose methods are called from afar."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: Reference(getattr(self.own, name)(*given)))


class AtOnce:
    """What the driver asks of Ray, done at once in this process.

    Args:
        lost: tasks that no worker lives through, by what they are for.
    """

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, lost: Collection[int | SharedStep]) -> None:
        self.lost = lost
        self.began: list[int | SharedStep] = []

    def remote(self, function: Any = None, **_: Any) -> Any:
        if function is None:
            return lambda kind: SimpleNamespace(remote=lambda: Actor(kind()))
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=partial(self.do, function)))

    def do(self, function: Any, task: Task, post: Actor, behind: Reference | None) -> Reference:
        self.began.append(task.cell)
        if task.cell in self.lost:
            return Reference(error=Lost("the worker died\nhere"))
        return Reference(function(task, post, None if behind is None else behind.value))

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Reference], list[Reference]]:
        return references[:1], references[1:]

    def get(self, reference: Reference) -> Any:
        if reference.error is not None:
            raise reference.error
        return reference.value

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]


@pytest.mark.parametrize(("share", "lost"), [(True, ()), (True, (SharedStep.TRUNK,)), (False, ())])
def test_the_trunk_is_a_task_of_its_own_and_cells_do_without_one_that_is_lost(
    share: bool, lost: tuple[SharedStep, ...], given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's folder is named as most are, from where the study is begun."""
    monkeypatch.chdir(tmp_path)
    local, there = run({**given, "out": "run"}), AtOnce(lost)
    monkeypatch.setattr("prunelab.studies.engines.address.find_spec", lambda name: object())
    monkeypatch.setattr("prunelab.studies.engines.ray._connected", lambda config: nullcontext(there))
    said: list[str] = []
    remote = run({**given, "out": "ray", "engine": "ray", "ray": {"share_trunk": share}}, PlainView(said.append))
    assert figures(remote) == figures(local)
    assert list(files(tmp_path / "ray")) == list(files(tmp_path / "run"))
    dense, depth, width = range(3)
    if share:
        assert there.began == [SharedStep.PLANS, SharedStep.TRUNK, width, dense, depth]
    else:
        assert there.began == [SharedStep.PLANS, dense, depth, width]
    assert ("cells are scored individually: the worker died" in said) == (share and bool(lost))


@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_without_the_folder_sends_its_files(shared: bool, given: dict[str, Any], tmp_path: Path) -> None:
    local = run(given)
    folder = tmp_path / "driver"
    told: list[Any] = []
    with locked(folder) as token:
        there = {**given, "out": str(folder if shared else tmp_path / "unseen")}
        results = list(_done(study_config(there), token, told.append))
    plans, trunk, *found = results
    assert not any(result.failures for result in results)
    assert not any(result.measured for result in (plans, trunk)), "cells say what was measured of them"
    if shared:
        assert list(files(folder)) == list(files(tmp_path / "run"))
        assert all(result.files is None for result in found)
    else:
        assert not (tmp_path / "unseen").exists()
        sent = {name for result in results for name in (result.files or {})}
        assert sorted(sent) == list(files(tmp_path / "run"))
        measured_ahead = [name for name in trunk.files or {} if name.endswith(".json") and name.startswith("cells/")]
        assert len(measured_ahead) == 4, "of the dense model and of the cut in depth, each twice"
        assert not any(name in (result.files or {}) for result in found for name in measured_ahead)
    measured = [name for result in found for name in result.measured]
    assert measured == [str(one.path.relative_to(tmp_path / "run")) for one in local.measured]
    lines: list[str] = []
    cells = {cell.label: cell for cell in study_grid(study_config(given))}
    for event in told:
        apply_event(PlainView(lines.append), event, cells)
    assert sum("token_perplexity" in line for line in lines) == 3


def test_paths_are_meant_from_where_the_study_was_begun(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder, elsewhere = Path(given["models"][0]), tmp_path / "driver", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with locked(folder) as token:
        config = study_config({**given, "models": [model.name], "out": str(folder)})
        found = run_task(Task(config, token, 0, SharedStep.PLANS, model.parent), lambda event: None)
    assert not found.failures
    assert len(list(folder.glob("plans/*.json"))) == 2
    assert Path.cwd() == elsewhere


def _done(config: StudyConfig, token: str, tell: Callable[[Event], None]) -> Iterator[TaskResult]:
    """The results of all tasks as the driver gives them out, each told what those before it have sent."""
    place = Path("/gone/where/the/driver/is")
    plans = run_task(Task(config, token, 0, SharedStep.PLANS, place), tell)
    trunk = run_task(Task(config, token, 0, SharedStep.TRUNK, place), tell, plans.files)
    yield from (plans, trunk)
    cells = study_grid(config)
    for number in range(len(cells)):
        sent = trunk if number in trunk_of(cells) else plans
        yield run_task(Task(config, token, 0, number, place), tell, sent.files)


def test_a_folder_belongs_to_one_study_at_a_time(given: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = f"""
import sys, time
from pathlib import Path
from prunelab.io.folder_lock import locked
with locked(Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(InvalidRequest, match=rf"in use by another study \(process {other.pid} on .*give another --out"):
        run(given)
    assert not (folder / "study.yaml").exists()
    other.kill()
    other.wait()
    other.stdout.close()
    run(given)
    with locked(folder) as token:
        assert holds(folder, token)
        assert not holds(folder, "another")
        assert not holds(tmp_path, token)


def test_what_no_machine_has_is_named() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0, "memory": 4e9}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert _lacking({"num_cpus": 2, "num_gpus": 0, "memory": 4e9}, nodes) is None
    assert _lacking({"num_gpus": 0.5}, nodes) == "a cell requests 0.5 GPU, but no Ray machine has more than 0"
    assert _lacking({"memory": 5e9}, nodes) == "a cell requests 5 GB memory, but no Ray machine has more than 4 GB"
    assert _lacking({"num_cpus": 1}, []) == "a cell requests 1 CPU, but no Ray machine has more than 0"


def test_without_ray_the_command_that_installs_it_is_named(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("prunelab.studies.engines.address.find_spec", lambda name: None)
    ran = command(
        "study", "--model", tiny_checkpoint("llama"), "--benchmark", f"text:{corpus}", "--out", tmp_path / "run",
        "--engine", "ray", "--workers", 2,
    )  # fmt: skip
    assert (ran.code, "pip install 'prunelab[ray]'" in ran.err) == (2, True), ran
    assert not (tmp_path / "run").exists()
