"""One cell as a task: what goes to a worker, what it does there, and what comes back.

A worker that sees the run's folder reads and writes it as the local engine does. One that does not is sent the plans
and statistics that it needs, and sends back the files that it wrote.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.io.folder_lock import holds
from prunelab.studies.config import StudyConfig
from prunelab.studies.grid import cells_of
from prunelab.studies.model_runner import ModelStudy, StudyState
from prunelab.studies.progress import StudyView, title
from prunelab.studies.store import ResultsStore

if TYPE_CHECKING:
    from prunelab.studies.run import Failure

Event = tuple[str, tuple[Any, ...]]
"""A call of the view's, by name, its cells as labels and its benchmarks as titles."""

FOLDERS = ("statistics", "plans", "cells")


class SharedStep(Enum):
    """What is done before a model's cells, for several of them.

    Attributes:
        PLANS: calibrate, and plan every cut.
        TRUNK: score the whole model and its cuts in depth in one pass a benchmark, as the local engine does.
    """

    PLANS = "plans"
    TRUNK = "trunk"


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    Attributes:
        config: the study, its folder absolute.
        token: what the run's lock file says: a worker that reads the same sees the same folder.
        model: which of the study's models.
        cell: which of its cells, or what is done before them.
        place: the folder that the study was begun in, from which paths in it are meant.
    """

    config: StudyConfig
    token: str
    model: int
    cell: int | SharedStep
    place: Path


@dataclass(frozen=True)
class TaskResult:
    """What a worker found.

    Attributes:
        measured: measurement files below the run's folder, in the order of the cell's benchmarks.
        failures: what could not be measured.
        files: what the worker wrote, by path below the run's folder; empty where it sees the folder itself.
    """

    measured: Sequence[str] = ()
    failures: Sequence[Failure] = ()
    files: Mapping[str, bytes] | None = None


def run_task(task: Task, tell: Callable[[Event], None], sent: Mapping[str, bytes] | None = None) -> TaskResult:
    """Do it; a model that this process has loaded for the study's last task of it is used again.

    Args:
        task: what to do.
        tell: told what happens, for the view.
        sent: files that other tasks wrote where this one may not see them.
    """
    with chdir(task.place) if task.place.is_dir() else nullcontext():
        return _do(task, tell, sent or {})


def _do(task: Task, tell: Callable[[Event], None], sent: Mapping[str, bytes]) -> TaskResult:
    shared = holds(task.config.out, task.token)
    folder = task.config.out if shared else _own_folder(task.token)
    for name, content in sent.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    before = set(_files(folder))
    found = StudyState(EventForwarder(tell))
    cells = cells_of(task.config, task.config.models[task.model])
    with found.record_failures(
        task.config.models[task.model].path, [cells[task.cell]] if isinstance(task.cell, int) else cells
    ):
        study = _study(task.config.model_copy(update={"out": folder}), task.model)
        study.found = found
        if task.cell is SharedStep.PLANS:
            study.prepare()
        elif task.cell is SharedStep.TRUNK:
            study.score_together()
        else:
            study.run_cell(study.cells[task.cell])
    measured = [str(one.path.relative_to(folder)) for one in found.measured]
    if shared:
        return TaskResult(measured, found.failures)
    new = {name: (folder / name).read_bytes() for name in _files(folder) if name not in before}
    return TaskResult(measured, found.failures, {**sent, **new} if isinstance(task.cell, SharedStep) else new)


def _files(folder: Path) -> list[str]:
    found = (path for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found if not path.name.startswith("."))


@lru_cache(maxsize=1)
def _own_folder(token: str) -> Path:
    """A folder of this process for one study."""
    return Path(tempfile.mkdtemp(prefix=f"prunelab-{token}-"))


class NullView:
    """Told of nothing; a study that is kept gets another with every task."""

    def put(self, event: Event) -> None:
        """Nothing."""


@lru_cache(maxsize=1)
def _study_of(text: str, model: int) -> ModelStudy:
    config = StudyConfig.model_validate_json(text)
    return ModelStudy(
        config, config.models[model], ResultsStore(config.out), StudyState(EventForwarder(NullView().put))
    )


def _study(config: StudyConfig, model: int) -> ModelStudy:
    """The study of one model, kept in this process with what it has loaded until another is asked for."""
    return _study_of(config.model_dump_json(), model)


def forget(token: str) -> None:
    """Remove what a worker that does not see the run's folder has kept of it."""
    with suppress(OSError):
        shutil.rmtree(_own_folder(token))


class EventForwarder:
    """A view that passes on what happens, in words that travel."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self.tell = tell

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in StudyView.__dict__:
            raise AttributeError(name)
        return lambda *given: self.tell((name, tuple(_told(one) for one in given)))


def _told(value: Any) -> Any:
    if hasattr(value, "label") and hasattr(value, "runs"):
        return _Cell(value.label)
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "expected_tokens"):
        return _Run(title(value))
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    return str(value) if isinstance(value, BaseException) else value


@dataclass(frozen=True)
class _Cell:
    label: str


@dataclass(frozen=True)
class _Run:
    title: str


def apply_event(view: StudyView, event: Event, cells: Mapping[str, Any]) -> None:
    """Tell a view what a worker told.

    Args:
        view: the driver's.
        event: what happened.
        cells: the grid's cells by their labels.
    """
    name, given = event
    labels = [one.label for one in given if isinstance(one, _Cell)]
    runs = {title(run): run for label in labels for run in cells[label].runs}

    def meant(value: Any) -> Any:
        if isinstance(value, _Cell):
            return cells[value.label]
        if isinstance(value, _Run):
            return runs.get(value.title)
        if isinstance(value, list):
            return [meant(one) for one in value]
        return value

    if name == "failed":
        of_cells, run, what, error = given
        told = [cells[one.label] for one in of_cells]
        own = {title(r): r for cell in told for r in cell.runs}
        view.failed(told, own.get(run.title) if isinstance(run, _Run) else None, what, RuntimeError(error))
        return
    getattr(view, name)(*(meant(one) for one in given))
