"""The cells of a study as tasks of a Ray cluster, or of a Ray that is started here for as long as the study lasts."""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from prunelab.config import RayConfig, StudyConfig
from prunelab.engines.cells import Event, Task, TaskResult, replay, run_task
from prunelab.engines.post import Post
from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.grid import GridCell, cells_of, grid_of
from prunelab.memory import parse_memory
from prunelab.model_study import Found
from prunelab.results import ResultsStore
from prunelab.run import Failure, Measured

CONNECTION_SECONDS = 5
RETRIES = 3
"""How often a task begins again whose worker was lost; what was written before is found, and not measured again."""


def check_ray(config: RayConfig) -> None:
    """Find out what is missing before anything is computed.

    Raises:
        MissingRequirement: Ray is not installed.
        InvalidRequest: nothing answers at the address.
    """
    if find_spec("ray") is None:
        raise MissingRequirement("--engine ray needs Ray: pip install 'prunelab[ray]'")
    parse_memory(config.memory_a_cell)
    if config.address in (None, "auto"):
        return
    host, colon, port = str(config.address).removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        raise InvalidRequest(f"--address {config.address} is no address: give HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECTION_SECONDS).close()
    except OSError as error:
        raise InvalidRequest(
            f"nothing answers at {config.address} within {CONNECTION_SECONDS} s ({error}): start Ray there (`ray start "
            "--head`), or leave out --address to start one here"
        ) from None


@contextmanager
def _connected(config: RayConfig) -> Iterator[Any]:
    import ray

    options: dict[str, Any] = {"include_dashboard": False} if config.address is None else {"address": config.address}
    if config.address is None and config.workers is not None:
        options["num_cpus"] = config.workers * config.cpus_a_cell
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidRequest(f"Ray cannot be reached or started ({reason}): look at `ray status`") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _remotely(task: Task, post: Any, prepared: TaskResult | None) -> TaskResult:
    """What runs in a worker; Ray gives it the result of the task that calibrated and planned."""
    sent = prepared.files if prepared is not None else None

    def tell(event: Event) -> None:
        post.put.remote(pickle.dumps(event))

    return run_task(task, tell, sent)


def run_ray(config: StudyConfig, found: Found, token: str) -> None:
    """Measure every cell of every model, as many at once as the cluster holds; what fails is recorded.

    Args:
        config: the study.
        found: takes what is found, in the order of the grid.
        token: of the lock that the run's folder is held by.
    """
    config = config.model_copy(update={"out": config.out.absolute()})
    with _connected(config.ray) as ray:
        post = ray.remote(num_cpus=0)(Post).remote()
        needs = {
            "num_cpus": config.ray.cpus_a_cell,
            "num_gpus": config.ray.gpus_a_cell,
            "memory": parse_memory(config.ray.memory_a_cell),
            "max_retries": RETRIES,
        }
        work = ray.remote(_remotely).options(**{name: need for name, need in needs.items() if need is not None})
        tasks: dict[Any, tuple[int, GridCell]] = {}
        place = 0
        for model, entry in enumerate(config.models):
            prepared = None
            for number, cell in enumerate(cells_of(config, entry)):
                if cell.cut is not None and prepared is None:
                    prepared = work.remote(Task(config, token, model, None), post, None)
                task = Task(config, token, model, number)
                tasks[work.remote(task, post, prepared if cell.cut is not None else None)] = (place, cell)
                place += 1
        _gather(ray, post, tasks, found, config)


def _gather(ray: Any, post: Any, tasks: dict[Any, tuple[int, GridCell]], found: Found, config: StudyConfig) -> None:
    """Wait for the tasks, tell the view meanwhile, and put what they found in order."""
    cells = {cell.label: cell for cell in grid_of(config)}
    store, waiting = ResultsStore(config.out), dict(tasks)
    measured: dict[int, list[Measured]] = {}
    failures: dict[int, list[Failure]] = {}
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=0.2)
        _tell(ray, post, found, cells)
        for ref in done:
            place, cell = waiting.pop(ref)
            with found.recorded(cell.label, [cell]):
                result: TaskResult = ray.get(ref)
                for name, content in (result.files or {}).items():
                    store.take(name, content)
                read = [(config.out / name, store.read(config.out / name)) for name in result.measured]
                measured[place] = [Measured(path, own) for path, own in read if own is not None]
                failures[place] = list(result.failures)
    _tell(ray, post, found, cells)
    for place in sorted(measured):
        found.measured.extend(measured[place])
        # A model that cannot be loaded fails in every cell's task: it is told once, as the local engine does.
        found.failures.extend(failure for failure in failures[place] if failure not in found.failures)


def _tell(ray: Any, post: Any, found: Found, cells: Mapping[str, GridCell]) -> None:
    """Tell the view what workers have told; they are this study's own, so that what they packed may be unpacked."""
    for packed in ray.get(post.collect.remote()):
        replay(found.view, pickle.loads(packed), cells)  # noqa: S301
