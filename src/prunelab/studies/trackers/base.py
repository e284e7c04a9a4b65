"""What a tracker is: somewhere the figures go besides the run's folder."""

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
