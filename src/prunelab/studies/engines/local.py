"""Run cells sequentially in this process; computation shared by depth cuts and the dense model is done once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.studies.grid import cells_of
from prunelab.studies.model_runner import ModelStudy, StudyState
from prunelab.studies.store import ResultsStore

if TYPE_CHECKING:
    from prunelab.studies.config import StudyConfig


def run_local(config: StudyConfig, state: StudyState) -> None:
    """Measure every cell of every model; failures are recorded."""
    for entry in config.models:
        with state.record_failures(entry.path, cells_of(config, entry)):
            ModelStudy(config, entry, ResultsStore(config.out), state).run()
