"""Base class of trackers, which send figures to an external service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from prunelab.errors import MissingRequirement


@dataclass(frozen=True)
class TrackedCell:
    """One cell for a tracker.

    Attributes:
        id: stable identifier of the cell in its run; 16 hexadecimal digits.
        name: label for people.
        study: name of the run's folder.
        parameters: model, method, ratio, seed and plan.
        metrics: every figure by `benchmark/metric`, including the number of few-shot examples and the group if any.
        files: `results.csv` and the cell's plan.
    """

    id: str
    name: str
    study: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Sequence[Path]


class Tracker(ABC):
    """Sends cells to a service through its client library.

    Attributes:
        name: name in options and configurations.
        package: package of the client, imported on use; also the name of the extra.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    def check(self) -> None:
        """Check that the client is installed.

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
        """Send cells, each as one run of the service; a cell that was sent before is updated."""
