"""The cells one after the other in this process, what depth cuts share with the dense model computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.studies.grid import cells_of
from prunelab.studies.model_runner import ModelStudy, StudyState
from prunelab.studies.store import ResultsStore

if TYPE_CHECKING:
    from prunelab.studies.config import StudyConfig


def run_local(config: StudyConfig, found: StudyState) -> None:
    """Measure every cell of every model; what fails is recorded."""
    for entry in config.models:
        with found.record_failures(entry.path, cells_of(config, entry)):
            ModelStudy(config, entry, ResultsStore(config.out), found).run()
