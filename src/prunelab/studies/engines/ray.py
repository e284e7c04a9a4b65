"""Run the cells of a study as tasks on a Ray cluster, or on a local Ray that is started for the study."""

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
"""How often a task whose worker was lost is repeated; results that it wrote before are reused."""


@contextmanager
def _connected(config: RayConfig) -> Iterator[Any]:
    import ray

    options: dict[str, Any] = {"address": config.address}
    if config.address is None:
        # Without an address, Ray would join a running local cluster.
        options = {"address": "local", "include_dashboard": False}
        if config.workers is not None:
            options["num_cpus"] = config.workers * config.cpus_a_cell
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises a bare Exception if it does not start in time
        where = "started locally" if config.address is None else f"reached at {config.address}"
        raise InvalidRequest(
            f"Ray cannot be {where} ({first_line(error)}): check `ray status`, or leave out --engine ray"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _remotely(task: Task, post: Any, prepared: TaskResult | None) -> TaskResult:
    """Run a task in a worker; Ray passes in the result of the task that it depends on."""
    sent = prepared.files if prepared is not None else None

    def tell(event: Event) -> None:
        post.put.remote(pickle.dumps(event))

    return run_task(task, tell, sent)


def run_ray(config: StudyConfig, state: StudyState, token: str) -> None:
    """Measure every cell of every model, as many in parallel as the cluster allows; failures are recorded.

    Args:
        config: the study.
        state: receives the results, in the order of the grid.
        token: token of the run folder's lock.
    """
    with _connected(config.ray) as ray:
        driver = _Driver(ray, config, state, token)
        if (lack := _lacking(driver.needs, ray.nodes())) is not None:
            if config.ray.address is None:
                raise InvalidRequest(f"{lack}: request less in the `ray` section of the configuration")
            state.view.note(f"{lack}: cells wait until such a machine joins the cluster")
        driver.run()


def _lacking(needs: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]) -> str | None:
    """Describe a requested resource that no machine has; None if there is none."""
    names = {
        "num_cpus": "CPU",
        "num_gpus": "GPU",
        "memory": "memory",
    }  # Ray's names, of task options and machine resources
    resources = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    for name, need in needs.items():
        most = max((machine.get(names[name], 0.0) for machine in resources), default=0.0)
        if need > most:
            requested, has = (format_bytes(size) if name == "memory" else f"{size:g}" for size in (need, most))
            return f"a cell requests {requested} {names[name]}, but no Ray machine has more than {has}"
    return None


class _Driver:
    """Submits the tasks, forwards their events to the view, and orders their results.

    Args:
        ray: the connected `ray` module.
        config: the study.
        state: receives the results.
        token: token of the lock.
    """

    def __init__(self, ray: Any, config: StudyConfig, state: StudyState, token: str) -> None:
        self.ray, self.config, self.state, self.token = ray, config, state, token
        self.task_config = config.model_copy(update={"out": config.out.absolute()})
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
        """Submit all tasks and collect all results."""
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
            self.state.measured.extend(measured)
            # A model that cannot be loaded fails in every task, but is reported once, as by the local engine.
            self.state.failures.extend(failure for failure in failures if failure not in self.state.failures)

    def _begin(self, model: int, cells: Sequence[GridCell], place: int) -> None:
        """Submit a model's tasks: first its plans, then its trunk, and all cells that do not depend on the trunk."""
        plans = self._give(model, SharedStep.PLANS) if any(cell.cut is not None for cell in cells) else None
        sharing = trunk_of(cells) if self.config.ray.share_trunk else []
        if sharing:
            trunk = self._give(model, SharedStep.TRUNK, plans)
            self.trunks[trunk] = _Trunk(model, plans, {number: (place + number, cells[number]) for number in sharing})
        for number, cell in enumerate(cells):
            if number not in sharing:
                ref = self._give(model, number, plans if cell.cut is not None else None)
                self.measuring[ref] = (place + number, cell)

    def _give(self, model: int, cell: int | SharedStep, dependency: Any = None) -> Any:
        """Submit a task; it waits for the task `dependency`, if given."""
        return self.work.remote(Task(self.task_config, self.token, model, cell, Path.cwd()), self.post, dependency)

    def _trunk_done(self, ref: Any) -> None:
        """Submit the cells of a finished trunk; if the trunk failed repeatedly, they are scored individually."""
        trunk, dependency = self.trunks.pop(ref), ref
        try:
            self._taken(ref)
        except self.ray.exceptions.RayError as error:
            self.state.view.note(f"cells are scored individually: {first_line(error)}")
            dependency = trunk.plans
        for number, cell in trunk.cells.items():
            self.measuring[self._give(trunk.model, number, dependency)] = cell

    def _cell_done(self, ref: Any) -> None:
        place, cell = self.measuring.pop(ref)
        with self.state.record_failures(cell.label, [cell]):
            result = self._taken(ref)
            read = [(self.config.out / name, self.store.read(self.config.out / name)) for name in result.measured]
            measured = [Measured(path, measurements) for path, measurements in read if measurements is not None]
            self.results[place] = (measured, list(result.failures))

    def _taken(self, ref: Any) -> TaskResult:
        """The result of a task, after storing its files in the run's folder."""
        result: TaskResult = self.ray.get(ref)
        for name, content in (result.files or {}).items():
            self.store.take(name, content)
        return result

    def _tell(self) -> None:
        """Apply the workers' events to the view; unpickling is safe, because they belong to this study."""
        for packed in self.ray.get(self.post.collect.remote()):
            apply_event(self.state.view, pickle.loads(packed), self.cells)  # noqa: S301


@dataclass(frozen=True)
class _Trunk:
    """The cells that wait for a trunk.

    Attributes:
        model: index of the model in the study.
        plans: the task that calibrates and plans; None if there is none.
        cells: cells that share the trunk by index in the model, with their index in the grid.
    """

    model: int
    plans: Any
    cells: Mapping[int, tuple[int, GridCell]]
