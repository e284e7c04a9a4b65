"""Run a study: measure the dense models and all their cuts on every benchmark.

A cell is one model at one cut. Existing statistics, plans and measurements are reused, so that an interrupted study
resumes and a second run computes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from prunelab.evaluation.runner import check_all, check_modality
from prunelab.io.folder_lock import locked
from prunelab.models.bundled import checkpoint_of
from prunelab.models.loading import inspected, parse_device
from prunelab.pocket.data import data_root
from prunelab.studies.config import StudyConfig, write_config
from prunelab.studies.engines.address import check_ray
from prunelab.studies.engines.local import run_local
from prunelab.studies.engines.ray import run_ray
from prunelab.studies.grid import model_runs, study_grid
from prunelab.studies.model_runner import TEMPORARY_CHECKPOINTS, StudyState
from prunelab.studies.progress import PlainView, Say, StudyView
from prunelab.studies.run import Run, compared_to_dense
from prunelab.studies.run_folder import STUDY, require_run_folder, sweep_run
from prunelab.studies.trackers import trackers
from prunelab.studies.tracking import tracked_cells


def run_study(config: StudyConfig, say: Say = print, view: StudyView | None = None) -> Run:
    """Run the missing cells of a study. The caller writes the report (`prunelab.reports.write_report`).

    Args:
        config: the study.
        say: prints a line of progress if there is no view.
        view: displays the progress.

    Raises:
        PrunelabError: a benchmark, a device, an engine or a tracker is not available, or another study uses the folder;
            raised before anything is computed.
    """
    view = view or PlainView(say)
    resolved = with_data(config)
    check_study(resolved)
    with locked(config.out) as token:
        return _run(config, resolved, view, token)


def _run(config: StudyConfig, resolved: StudyConfig, view: StudyView, token: str) -> Run:
    """Run the study in a locked folder."""
    sweep_run(config.out)
    write_config(config.out / STUDY, config)
    state = StudyState(view)
    # Left by a killed study.
    shutil.rmtree(config.out / TEMPORARY_CHECKPOINTS, ignore_errors=True)
    view.begin(study_grid(resolved))
    try:
        if config.engine == "ray":
            run_ray(resolved, state, token)
        else:
            run_local(resolved, state)
    finally:
        view.end()
    with state.record_failures("comparisons"):
        state.differences.extend(compared_to_dense(state.measured))
    run = Run(config.out, config, state.measured, state.differences, state.failures)
    run.write()
    _track(run, config.trackers, state)
    return run


def with_data(config: StudyConfig) -> StudyConfig:
    """Set the folder from which the benchmarks read their data."""
    root = data_root(config.datasets_root, [entry.path for entry in config.models])
    return config.model_copy(update={"datasets_root": root})


def check_study(config: StudyConfig) -> None:
    """Check all requirements before anything is computed; errors state the remedy."""
    require_run_folder(config.out)
    for name in config.trackers:
        trackers[name].check()
    checked = []
    if config.engine == "ray":
        check_ray(config.ray)
    for entry in config.models:
        if config.engine == "local":  # a worker may have devices that this machine lacks
            parse_device(entry.device or config.device)
        model_tasks = model_runs(config, entry)
        check_modality(model_tasks, entry.path)
        if Path(str(checkpoint_of(entry.path) or entry.path)).is_dir():
            inspected(entry.path)
        checked += [run for run in model_tasks if run not in checked]
    check_all(checked)


def _track(run: Run, names: Sequence[str], state: StudyState) -> None:
    """Send the cells to the trackers; failures are recorded, and do not affect the run's folder."""
    before = len(state.failures)
    for name in names:
        with state.record_failures(f"tracker {name}"):
            trackers[name].log(tracked_cells(run))
    if len(state.failures) > before:
        run.write()
