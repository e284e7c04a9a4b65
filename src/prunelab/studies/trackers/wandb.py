"""Weights & Biases, through its client (https://docs.wandb.ai/ref/python/init)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from prunelab.studies.trackers import register
from prunelab.studies.trackers.base import TrackedCell, Tracker


@register
class Wandb(Tracker):
    """A cell is a run of the project WANDB_PROJECT (`prunelab` by default), grouped by study.

    A run has the id of its cell, so that sending a study twice does not duplicate it.
    """

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"

    def log(self, cells: Sequence[TrackedCell]) -> None:
        """Log parameters as configuration, figures as summary, and files as one artifact."""
        import wandb

        for cell in cells:
            with wandb.init(
                project=os.environ.get("WANDB_PROJECT", "prunelab"),
                id=cell.id,
                name=cell.name,
                group=cell.study,
                config=dict(cell.parameters),
                allow_val_change=True,
                resume="allow",
            ) as run:
                run.summary.update(dict(cell.metrics))
                artifact = wandb.Artifact(f"prunelab-{cell.id}", type="results")
                for path in cell.files:
                    artifact.add_file(str(path))
                run.log_artifact(artifact)
