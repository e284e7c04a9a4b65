"""What a study has found so far, its failures among it."""

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
    """What a study has found so far, and who is told."""

    view: StudyView
    measured: list[Measured] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def record_failures(
        self, what: str, cells: Sequence[GridCell] = (), run: BenchmarkRun | None = None
    ) -> Iterator[None]:
        """What fails in the block is recorded, and the grid goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (it is kept whole in failures.json)
            fault = not isinstance(error, PrunelabError)
            text = "".join(traceback.format_exception(error)) if fault else str(error)
            self.failures.append(Failure(what, text, fault))
            self.view.failed(cells, run, what, error)
