"""One cell as a task: its input, its execution on a worker, and its result.

A worker that shares the run's folder reads and writes it like the local engine. Other workers receive the plans and
statistics that they need, and return the files that they write.
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
"""A call of a view method: its name and arguments, with cells as labels and benchmarks as titles."""

FOLDERS = ("statistics", "plans", "cells")


class SharedStep(Enum):
    """A step that several cells of a model share, done before them.

    Attributes:
        PLANS: calibrate and plan every cut.
        TRUNK: score the dense model and its depth cuts in one pass per benchmark, as the local engine does.
    """

    PLANS = "plans"
    TRUNK = "trunk"


@dataclass(frozen=True)
class Task:
    """The input of a worker.

    Attributes:
        config: the study, with an absolute path of its folder.
        token: token of the run's lock file, by which a worker recognizes the same folder.
        model: index of the model in the study.
        cell: index of the cell, or a shared step.
        place: working directory of the study, the base of relative paths.
    """

    config: StudyConfig
    token: str
    model: int
    cell: int | SharedStep
    place: Path


@dataclass(frozen=True)
class TaskResult:
    """The result of a worker.

    Attributes:
        measured: measurement files below the run's folder, in the order of the cell's benchmarks.
        failures: cells and benchmarks that could not be measured.
        files: files written by the worker, by path below the run's folder; None if the worker shares the folder.
    """

    measured: Sequence[str] = ()
    failures: Sequence[Failure] = ()
    files: Mapping[str, bytes] | None = None


def run_task(task: Task, tell: Callable[[Event], None], sent: Mapping[str, bytes] | None = None) -> TaskResult:
    """Run a task; a model that this process loaded for the previous task is reused.

    Args:
        task: the task.
        tell: receives events for the view.
        sent: files of other tasks that this worker may not share.
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
    state = StudyState(EventForwarder(tell))
    cells = cells_of(task.config, task.config.models[task.model])
    with state.record_failures(
        task.config.models[task.model].path, [cells[task.cell]] if isinstance(task.cell, int) else cells
    ):
        study = _study(task.config.model_copy(update={"out": folder}), task.model)
        study.state = state
        if task.cell is SharedStep.PLANS:
            study.prepare()
        elif task.cell is SharedStep.TRUNK:
            study.score_together()
        else:
            study.run_cell(study.cells[task.cell])
    measured = [str(result.path.relative_to(folder)) for result in state.measured]
    if shared:
        return TaskResult(measured, state.failures)
    new = {name: (folder / name).read_bytes() for name in _files(folder) if name not in before}
    return TaskResult(measured, state.failures, {**sent, **new} if isinstance(task.cell, SharedStep) else new)


def _files(folder: Path) -> list[str]:
    paths = (path for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in paths if not path.name.startswith("."))


@lru_cache(maxsize=1)
def _own_folder(token: str) -> Path:
    """A private folder of this process for one study."""
    return Path(tempfile.mkdtemp(prefix=f"prunelab-{token}-"))


class NullView:
    """Discards events; each task replaces it by another view."""

    def put(self, event: Event) -> None:
        """Discard an event."""


@lru_cache(maxsize=1)
def _study_of(text: str, model: int) -> ModelStudy:
    config = StudyConfig.model_validate_json(text)
    return ModelStudy(
        config, config.models[model], ResultsStore(config.out), StudyState(EventForwarder(NullView().put))
    )


def _study(config: StudyConfig, model: int) -> ModelStudy:
    """The study of one model, cached in this process with its loaded models until another one is requested."""
    return _study_of(config.model_dump_json(), model)


def forget(token: str) -> None:
    """Remove the private folder of a worker that does not share the run's folder."""
    with suppress(OSError):
        shutil.rmtree(_own_folder(token))


class EventForwarder:
    """A view that forwards calls as serializable events."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self.tell = tell

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in StudyView.__dict__:
            raise AttributeError(name)
        return lambda *arguments: self.tell((name, tuple(_serialized(argument) for argument in arguments)))


def _serialized(value: Any) -> Any:
    if hasattr(value, "label") and hasattr(value, "runs"):
        return _Cell(value.label)
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "expected_tokens"):
        return _Run(title(value))
    if isinstance(value, list | tuple):
        return [_serialized(item) for item in value]
    return str(value) if isinstance(value, BaseException) else value


@dataclass(frozen=True)
class _Cell:
    label: str


@dataclass(frozen=True)
class _Run:
    title: str


def apply_event(view: StudyView, event: Event, cells: Mapping[str, Any]) -> None:
    """Apply a worker's event to a view.

    Args:
        view: the driver's view.
        event: the event.
        cells: cells of the grid by label.
    """
    name, arguments = event
    labels = [item.label for item in arguments if isinstance(item, _Cell)]
    runs = {title(run): run for label in labels for run in cells[label].runs}

    def restored(value: Any) -> Any:
        if isinstance(value, _Cell):
            return cells[value.label]
        if isinstance(value, _Run):
            return runs.get(value.title)
        if isinstance(value, list):
            return [restored(item) for item in value]
        return value

    if name == "failed":
        cell_arguments, run, what, error = arguments
        failed_cells = [cells[item.label] for item in cell_arguments]
        runs_by_title = {title(r): r for cell in failed_cells for r in cell.runs}
        view.failed(
            failed_cells, runs_by_title.get(run.title) if isinstance(run, _Run) else None, what, RuntimeError(error)
        )
        return
    getattr(view, name)(*(restored(item) for item in arguments))
