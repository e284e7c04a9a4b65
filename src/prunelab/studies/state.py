"""The results and failures of a running study."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prunelab.errors import PrunelabError
from prunelab.studies.run import Failure, Measured

if TYPE_CHECKING:
    from prunelab.evaluation.runner import BenchmarkTask as BenchmarkRun
    from prunelab.studies.comparison import Difference
    from prunelab.studies.grid import GridCell
    from prunelab.studies.progress import StudyView


@dataclass(frozen=True)
class StudyState:
    """The results and failures of a running study, and the view to report to."""

    view: StudyView
    measured: list[Measured] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def record_failures(
        self, what: str, cells: Sequence[GridCell] = (), run: BenchmarkRun | None = None
    ) -> Iterator[None]:
        """Record an exception in the block, so that the study continues."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (it is stored in failures.json)
            fault = not isinstance(error, PrunelabError)
            text = "".join(traceback.format_exception(error)) if fault else str(error)
            self.failures.append(Failure(what, text, fault))
            self.view.failed(cells, run, what, error)
