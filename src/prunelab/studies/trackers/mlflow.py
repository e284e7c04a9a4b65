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

    It is found again by its tag, so a study that is sent twice stands there once.
    """

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"

    def log(self, cells: Sequence[TrackedCell]) -> None:
        """Parameters, metrics, and files as artifacts."""
        from mlflow import MlflowClient

        client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "prunelab")
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
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
    """The id of the cell's run, begun where there is none yet."""
    there = client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{cell.id}'", max_results=1)
    if there:
        found: str = there[0].info.run_id
        return found
    begun = client.create_run(experiment, tags={TAG: cell.id, "prunelab.study": cell.study}, run_name=cell.name)
    run_id: str = begun.info.run_id
    return run_id


def allowed(name: str) -> str:
    """A metric's name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
