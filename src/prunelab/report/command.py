"""The command that makes a cell's checkpoint."""

from __future__ import annotations

import shlex

from prunelab.config import PruningConfig
from prunelab.loading import short_name
from prunelab.report.cuts import PlannedCut
from prunelab.results import Measurement
from prunelab.run import Run


def prune_command(run: Run, plan: PlannedCut, m: Measurement) -> str:
    """`prunelab prune MODEL --method ... --ratio ...`, with what the study set."""
    entries = {entry.name or short_name(entry.path): entry.path for entry in run.config.models}
    words = ["prunelab", "prune", entries.get(m.model, m.model), "--method", m.method]
    words += ["--ratio", repr(plan.requested_ratio)]
    calibration = run.config.calibration
    words += ["--calibration", calibration.corpus, "--samples", str(calibration.samples)]
    words += ["--sequence-length", str(calibration.sequence_length)]
    words += ["--seed", str(m.seed)] if m.seed else []
    for name, default in PruningConfig().model_dump().items():
        value = getattr(run.config.pruning, name)
        if value != default:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return shlex.join([*words, "--out", "pruned"])
