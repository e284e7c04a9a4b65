"""The cells of a study as tasks of a Ray cluster, or of a Ray that is started here for as long as the study lasts."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import InvalidRequest, first_line
from prunelab.models.memory import format_bytes, parse_memory
from prunelab.studies.engines.cells import Event, SharedStep, Task, TaskResult, apply_event, run_task
from prunelab.studies.engines.events import EventQueue
from prunelab.studies.grid import GridCell, cells_of, study_grid, trunk_of
from prunelab.studies.run import Failure, Measured
from prunelab.studies.store import ResultsStore

if TYPE_CHECKING:
    from prunelab.studies.config import RayConfig, StudyConfig
    from prunelab.studies.model_runner import StudyState

RETRIES = 3
"""How often a task begins again whose worker was lost; what was written before is found, and not measured again."""


@contextmanager
def _connected(config: RayConfig) -> Iterator[Any]:
    import ray

    options: dict[str, Any] = {"address": config.address}
    if config.address is None:
        # Without an address Ray would join a cluster that it finds here.
        options = {"address": "local", "include_dashboard": False}
        if config.workers is not None:
            options["num_cpus"] = config.workers * config.cpus_a_cell
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # a Ray that does not start in time raises just that
        where = "started here" if config.address is None else f"reached at {config.address}"
        raise InvalidRequest(
            f"Ray cannot be {where} ({first_line(error)}): look at `ray status`, or do without --engine ray"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _remotely(task: Task, post: Any, prepared: TaskResult | None) -> TaskResult:
    """What runs in a worker; Ray gives it the result of the task that it was to wait for."""
    sent = prepared.files if prepared is not None else None

    def tell(event: Event) -> None:
        post.put.remote(pickle.dumps(event))

    return run_task(task, tell, sent)


def run_ray(config: StudyConfig, found: StudyState, token: str) -> None:
    """Measure every cell of every model, as many at once as the cluster holds; what fails is recorded.

    Args:
        config: the study.
        found: takes what is found, in the order of the grid.
        token: of the lock that the run's folder is held by.
    """
    with _connected(config.ray) as ray:
        driver = _Driver(ray, config, found, token)
        if (lack := _lacking(driver.needs, ray.nodes())) is not None:
            if config.ray.address is None:
                raise InvalidRequest(f"{lack}: ask for less in the configuration's `ray` part")
            found.view.note(f"{lack}: cells wait until one joins the cluster that has")
        driver.run()


def _lacking(needs: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]) -> str | None:
    """What a cell asks for and no machine has; None where one has all of it."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # Ray's own, of what a task and a machine have
    there = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    for name, need in needs.items():
        most = max((one.get(names[name], 0.0) for one in there), default=0.0)
        if need > most:
            asked, has = (format_bytes(size) if name == "memory" else f"{size:g}" for size in (need, most))
            return f"a cell asks for {asked} {names[name]}, and no machine of Ray has more than {has}"
    return None


class _Driver:
    """Gives out the tasks, tells the view what they tell, and puts what they find in order.

    Args:
        ray: connected.
        config: the study.
        found: takes what is found.
        token: of the lock.
    """

    def __init__(self, ray: Any, config: StudyConfig, found: StudyState, token: str) -> None:
        self.ray, self.config, self.found, self.token = ray, config, found, token
        self.told = config.model_copy(update={"out": config.out.absolute()})
        self.store = ResultsStore(config.out)
        self.post = ray.remote(num_cpus=0)(EventQueue).remote()
        needs = {
            "num_cpus": config.ray.cpus_a_cell,
            "num_gpus": config.ray.gpus_a_cell,
            "memory": parse_memory(config.ray.memory_a_cell),
        }
        self.needs: dict[str, float] = {name: need for name, need in needs.items() if need is not None}
        self.work = ray.remote(_remotely).options(**self.needs, max_retries=RETRIES)
        self.cells = {cell.label: cell for cell in study_grid(config)}
        self.measuring: dict[Any, tuple[int, GridCell]] = {}
        self.trunks: dict[Any, _Trunk] = {}
        self.results: dict[int, tuple[list[Measured], list[Failure]]] = {}

    def run(self) -> None:
        """From the first task to the last result."""
        place = 0
        for model, entry in enumerate(self.config.models):
            cells = cells_of(self.config, entry)
            self._begin(model, cells, place)
            place += len(cells)
        while self.measuring or self.trunks:
            done, _ = self.ray.wait([*self.measuring, *self.trunks], timeout=0.2)
            self._tell()
            for ref in done:
                if ref in self.trunks:
                    self._trunk_done(ref)
                else:
                    self._cell_done(ref)
        self._tell()
        for place in sorted(self.results):
            measured, failures = self.results[place]
            self.found.measured.extend(measured)
            # A model that cannot be loaded fails in every cell's task: it is told once, as the local engine does.
            self.found.failures.extend(one for one in failures if one not in self.found.failures)

    def _begin(self, model: int, cells: Sequence[GridCell], place: int) -> None:
        """A model's tasks: its plans first, then at once what shares no trunk, and what does behind the trunk's."""
        plans = self._give(model, SharedStep.PLANS) if any(cell.cut is not None for cell in cells) else None
        sharing = trunk_of(cells) if self.config.ray.share_trunk else []
        if sharing:
            trunk = self._give(model, SharedStep.TRUNK, plans)
            self.trunks[trunk] = _Trunk(model, plans, {number: (place + number, cells[number]) for number in sharing})
        for number, cell in enumerate(cells):
            if number not in sharing:
                ref = self._give(model, number, plans if cell.cut is not None else None)
                self.measuring[ref] = (place + number, cell)

    def _give(self, model: int, cell: int | SharedStep, behind: Any = None) -> Any:
        """Have something done, where `behind` names a task once that is done."""
        return self.work.remote(Task(self.told, self.token, model, cell, Path.cwd()), self.post, behind)

    def _trunk_done(self, ref: Any) -> None:
        """What was scored together is there; a trunk that was lost again and again leaves it to the cells."""
        trunk, behind = self.trunks.pop(ref), ref
        try:
            self._taken(ref)
        except self.ray.exceptions.RayError as error:
            self.found.view.note(f"cells are scored one by one: {first_line(error)}")
            behind = trunk.plans
        for number, cell in trunk.cells.items():
            self.measuring[self._give(trunk.model, number, behind)] = cell

    def _cell_done(self, ref: Any) -> None:
        place, cell = self.measuring.pop(ref)
        with self.found.record_failures(cell.label, [cell]):
            result = self._taken(ref)
            read = [(self.config.out / name, self.store.read(self.config.out / name)) for name in result.measured]
            measured = [Measured(path, own) for path, own in read if own is not None]
            self.results[place] = (measured, list(result.failures))

    def _taken(self, ref: Any) -> TaskResult:
        """A task's result, its files put into the run's folder."""
        result: TaskResult = self.ray.get(ref)
        for name, content in (result.files or {}).items():
            self.store.take(name, content)
        return result

    def _tell(self) -> None:
        """Tell the view what workers have told; they are this study's own, so that what they packed may be unpacked."""
        for packed in self.ray.get(self.post.collect.remote()):
            apply_event(self.found.view, pickle.loads(packed), self.cells)  # noqa: S301


@dataclass(frozen=True)
class _Trunk:
    """What waits for a trunk.

    Attributes:
        model: which of the study's.
        plans: the task that calibrated and planned; None where there is none.
        cells: the model's cells that share it, by their numbers, with their places in the grid.
    """

    model: int
    plans: Any
    cells: Mapping[int, tuple[int, GridCell]]
