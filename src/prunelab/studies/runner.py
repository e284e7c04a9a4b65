"""The study: every model whole and pruned every way, measured by every benchmark, on one screen.

A cell is one model at one cut. What a cell needs that exists already (statistics, plans, measurements) is not computed
again, so a study that was killed goes on where it was, and a second run computes nothing.
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
    """Run the grid, or what is missing of it. The caller writes the report (`prunelab.reports.write_report`).

    Args:
        config: what to run.
        say: prints a line of news, where there is no view.
        view: shows how far it is.

    Raises:
        PrunelabError: before anything is computed, where a benchmark, a device, an engine or a tracker is not to be
            had, or another study is at work in the folder.
    """
    view = view or PlainView(say)
    resolved = with_data(config)
    check_study(resolved)
    with locked(config.out) as token:
        return _run(config, resolved, view, token)


def _run(config: StudyConfig, resolved: StudyConfig, view: StudyView, token: str) -> Run:
    """The study in a folder that is held."""
    sweep_run(config.out)
    write_config(config.out / STUDY, config)
    found = StudyState(view)
    shutil.rmtree(
        config.out / TEMPORARY_CHECKPOINTS, ignore_errors=True
    )  # what a study that was killed had no time to remove
    view.begin(study_grid(resolved))
    try:
        if config.engine == "ray":
            run_ray(resolved, found, token)
        else:
            run_local(resolved, found)
    finally:
        view.end()
    with found.record_failures("comparisons"):
        found.differences.extend(compared_to_dense(found.measured))
    run = Run(config.out, config, found.measured, found.differences, found.failures)
    run.write()
    _track(run, config.trackers, found)
    return run


def with_data(config: StudyConfig) -> StudyConfig:
    """The study with the folder that its benchmarks read their data from."""
    root = data_root(config.datasets_root, [entry.path for entry in config.models])
    return config.model_copy(update={"datasets_root": root})


def check_study(config: StudyConfig) -> None:
    """Find out what is missing before anything is computed; raises what mends it."""
    require_run_folder(config.out)
    for name in config.trackers:
        trackers[name].check()
    checked = []
    if config.engine == "ray":
        check_ray(config.ray)
    for entry in config.models:
        if config.engine == "local":  # a worker may have devices that this machine has not
            parse_device(entry.device or config.device)
        own = model_runs(config, entry)
        check_modality(own, entry.path)
        if Path(str(checkpoint_of(entry.path) or entry.path)).is_dir():
            inspected(entry.path)
        checked += [run for run in own if run not in checked]
    check_all(checked)


def _track(run: Run, names: Sequence[str], found: StudyState) -> None:
    """Send the cells to the trackers; one that fails is recorded, the run's folder being complete without."""
    before = len(found.failures)
    for name in names:
        with found.record_failures(f"tracker {name}"):
            trackers[name].log(tracked_cells(run))
    if len(found.failures) > before:
        run.write()
