"""What a tracker is: somewhere the figures go besides the run's folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from prunelab.errors import MissingRequirement
from prunelab.io.fingerprint import content_hash

if TYPE_CHECKING:
    from prunelab.studies.run import Run
    from prunelab.studies.store import Measurement


@dataclass(frozen=True)
class TrackedCell:
    """One cell as a tracker gets it.

    Attributes:
        id: the same whenever the same cell of the same run is sent again; 16 hexadecimal digits.
        name: what people read.
        study: the run's folder, by name.
        parameters: model, method, ratio, seed and plan.
        metrics: every figure under `benchmark/metric`, the shots and the group in it where there are any.
        files: results.csv and the cell's plan.
    """

    id: str
    name: str
    study: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Sequence[Path]


class Tracker(ABC):
    """Sends cells to a service through its own client.

    Attributes:
        name: what the user calls it.
        package: the client's package, imported when it is used and not before; also the name of the extra.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    def check(self) -> None:
        """Find out whether the client is there.

        Raises:
            MissingRequirement: with the command that installs it.
        """
        if find_spec(self.package) is None:
            raise MissingRequirement(
                f"tracker {self.name} needs the package {self.package}, which is not installed: "
                f"pip install 'prunelab[{self.name}]', or leave the tracker out"
            )

    @abstractmethod
    def log(self, cells: Sequence[TrackedCell]) -> None:
        """Send cells, each as one run of the service; one that was sent before is brought up to date."""


def tracked_cells(run: Run) -> list[TrackedCell]:
    """A run's cells."""
    by_cell: dict[tuple[str, str, float, int | None, str | None], list[Measurement]] = {}
    for m in run.measurements:
        by_cell.setdefault((m.model, m.method, m.ratio, m.seed, m.plan), []).append(m)
    plans = run.planned
    cells = []
    for (model, method, ratio, seed, plan), own in by_cell.items():
        given = {"model": model, "method": method, "ratio": ratio, "seed": seed, "plan": plan}
        parameters = {**given, "achieved_ratio": own[0].achieved_ratio, "dtype": own[0].details.get("dtype")}
        label = model if method == "dense" else f"{model} {method} {ratio:.0%}{f' seed {seed}' if seed else ''}"
        cells.append(
            TrackedCell(
                id=content_hash({"run": str(run.folder.resolve()), **given}),
                name=label,
                study=run.folder.resolve().name,
                parameters={key: str(value) for key, value in parameters.items() if value is not None},
                metrics={_metric(m): m.value for m in own},
                files=[run.folder / "results.csv", *([plans[plan].path] if plan is not None and plan in plans else [])],
            )
        )
    return cells


def _metric(m: Measurement) -> str:
    shots = "" if m.shots is None else f" {m.shots}-shot"
    return f"{m.benchmark}{shots}/{m.metric}{f'/{m.group}' if m.group else ''}"
