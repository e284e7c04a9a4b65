"""MLflow, through its tracking client (https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from prunelab.studies.trackers import register
from prunelab.studies.trackers.base import TrackedCell, Tracker

TAG = "prunelab.cell"


@register
class Mlflow(Tracker):
    """A cell is a run of the experiment MLFLOW_EXPERIMENT_NAME (`prunelab` by default) at MLFLOW_TRACKING_URI.

    A run is identified by its tag, so that sending a study twice does not duplicate it.
    """

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"

    def log(self, cells: Sequence[TrackedCell]) -> None:
        """Log parameters, metrics, and files as artifacts."""
        from mlflow import MlflowClient

        client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "prunelab")
        existing = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if existing is None else existing.experiment_id
        for cell in cells:
            run = _run(client, experiment, cell)
            for key, value in cell.parameters.items():
                client.log_param(run, key, value)
            for metric, figure in cell.metrics.items():
                client.log_metric(run, allowed(metric), figure)
            for path in cell.files:
                client.log_artifact(run, str(path))
            client.set_terminated(run)


def _run(client: Any, experiment: str, cell: TrackedCell) -> str:
    """The id of the cell's run, which is created if it does not exist."""
    existing = client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{cell.id}'", max_results=1)
    if existing:
        existing_id: str = existing[0].info.run_id
        return existing_id
    created = client.create_run(experiment, tags={TAG: cell.id, "prunelab.study": cell.study}, run_name=cell.name)
    run_id: str = created.info.run_id
    return run_id


def allowed(name: str) -> str:
    """Replace characters of a metric's name that MLflow does not allow."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
