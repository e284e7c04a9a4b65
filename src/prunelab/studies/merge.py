"""Merge two runs into one folder, atomically and without contradictions."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prunelab.errors import InvalidRequest, PlanError
from prunelab.evaluation.records import CellId, Measurement
from prunelab.io.atomic_write import atomic_folder
from prunelab.io.outputs import is_statistics
from prunelab.pruning.plan import PruningPlan
from prunelab.studies.compare import differing_settings, key_of, label_of
from prunelab.studies.config import StudyConfig, write_config
from prunelab.studies.run import Failure, Measured, Run, compared_to_dense, load_run
from prunelab.studies.store import StoredResult, read_stored, samples_beside

if TYPE_CHECKING:
    from prunelab.studies.model_entry import ModelEntry

T = TypeVar("T")

GRID = {"models", "methods", "ratios", "benchmarks", "suites", "seeds", "shots"}
"""Keys of the grid, merged as the union of both runs."""

ENTRY = {"dtype", "device", "chat_template"}
"""Keys that a model can override: if the runs differ, they are stored per model."""

PLACES = {"datasets_root", "out", "allow_code_execution", "allow_untrained_punkt", "trackers"}
"""Keys that do not affect figures, taken from the first run."""


def merge_runs(first: Run, second: Run, out: Path, prefer: Run | None = None) -> Run:
    """Write a folder with both runs and comparisons over all their cells.

    Args:
        first: one run.
        second: the other.
        out: the folder to write.
        prefer: the run whose figures to keep where the runs contradict each other; without it, that is an error.

    Raises:
        InvalidRequest: the runs contradict each other, or have different settings; with both.
        OutputExists: `out` exists.
    """
    config = merged_config(first.config, second.config).model_copy(update={"out": out})
    conflicts = _conflicts(first, second)
    if prefer is None:
        _refuse(conflicts, first, second)
    left_out = {result.path if prefer is second else other.path for result, other in conflicts}
    by_file: dict[Path, Measured] = {}
    for run in (first, second):
        for result in run.measured:
            if result.path not in left_out:
                by_file.setdefault(result.path.relative_to(run.folder), result)
    with atomic_folder(out) as temporary:
        for run in (first, second):
            _copy(run, temporary, left_out)
        measured = [Measured(temporary / name, result.measurements) for name, result in by_file.items()]
        failures = _failures(first, second, [m for result in measured for m in result.measurements])
        write_config(temporary / "study.yaml", config)
        Run(temporary, config, measured, compared_to_dense(measured), failures).write()
    return load_run(out)


def merged_config(first: StudyConfig, second: StudyConfig) -> StudyConfig:
    """Merge the configurations of two runs.

    Raises:
        InvalidRequest: they differ in a setting that affects figures and cannot be set per model.
    """
    left, right = first.model_dump(), second.model_dump()
    for key in StudyConfig.model_fields:
        if key not in GRID | ENTRY | PLACES and left[key] != right[key]:
            raise InvalidRequest(
                f"{first.out} and {second.out} differ in {key} ({left[key]} and {right[key]}) and cannot be merged: "
                "repeat one of them with the setting of the other, or use `prunelab compare`"
            )
    entries = [_spelled_out(entry, config) for config in (first, second) for entry in config.models]
    union: dict[str, Any] = {
        key: _once([*left[key], *right[key]]) for key in GRID - {"models", "suites"} if isinstance(left[key], tuple)
    }
    changes = {key: None for key in ENTRY if left[key] != right[key] and key != "chat_template"}
    models = tuple(_merged_entries(entries))
    return first.model_copy(update={**union, **changes, "suites": (), "models": models})


def _spelled_out(entry: ModelEntry, config: StudyConfig) -> ModelEntry:
    """A model entry with the values inherited from its study."""
    return entry.model_copy(
        update={
            "name": entry.title,
            "dtype": entry.dtype or config.dtype,
            "device": entry.device or config.device,
            "chat_template": entry.chat_template or config.chat_template,
            "benchmarks": config.benchmarks if entry.benchmarks is None else entry.benchmarks,
            "ratios": config.ratios if entry.ratios is None else entry.ratios,
            "shots": config.shots if entry.shots is None else entry.shots,
        }
    )


def _merged_entries(entries: Sequence[ModelEntry]) -> Iterable[ModelEntry]:
    """Yield each model once, with the benchmarks, ratios and shots of both runs."""
    for name in _once(entry.title for entry in entries):
        same_model = [entry for entry in entries if entry.title == name]
        for key in ("path", "dtype", "chat_template"):
            values = _once(getattr(entry, key) for entry in same_model)
            if len(values) > 1:
                raise InvalidRequest(
                    f"{name} has {key} {values[0]} in one run and {values[1]} in the other: rename "
                    "the model in one of the runs"
                )
        ratios = {
            benchmark: _once(
                ratio for entry in same_model for ratio in entry.benchmark_ratios.get(benchmark, entry.ratios or ())
            )
            for entry in same_model
            for benchmark in entry.benchmark_ratios
        }
        update: dict[str, Any] = {
            key: _once(value for entry in same_model for value in getattr(entry, key))
            for key in ("benchmarks", "ratios", "shots")
        }
        yield same_model[0].model_copy(update={**update, "benchmark_ratios": ratios})


def _conflicts(first: Run, second: Run) -> list[tuple[Measured, Measured]]:
    """Results that both runs measured with different figures."""
    right = {key_of(result.primary): result for result in second.measured}
    pairs = [(result, right[key_of(result.primary)]) for result in first.measured if key_of(result.primary) in right]
    return [(result, other) for result, other in pairs if _figures(result) != _figures(other)]


def _refuse(conflicts: Sequence[tuple[Measured, Measured]], first: Run, second: Run) -> None:
    named = []
    for result, other in conflicts:
        settings = differing_settings(result, other)
        plans = [] if result.primary.plan == other.primary.plan else ["different plans"]
        why = "; ".join([*settings, *plans]) or f"{result.primary.value:.6g} and {other.primary.value:.6g}"
        named.append(f"{label_of(result.primary)}, {result.primary.benchmark} ({why})")
    if named:
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        raise InvalidRequest(
            f"{first.folder} and {second.folder} measured different figures for {'; '.join(named[:3])}{more}: inspect "
            "them with `prunelab compare`, and choose a run with --prefer a or --prefer b"
        )


def _figures(result: Measured) -> list[dict[str, Any]]:
    """The figures without fields that differ between repetitions."""
    return [m.model_dump(include={"metric", "value", "n", "group", "plan"}) for m in result.measurements]


def _copy(run: Run, to: Path, left_out: Collection[Path]) -> None:
    """Copy measurements, plans and statistics; existing files are equal, and invalid files are skipped."""
    for path in sorted(set(run.folder.glob("cells/*/*.json")) - set(left_out)):
        stored = read_stored(path)
        if not isinstance(stored, StoredResult):
            warnings.warn(f"{path} {stored}: it is not copied", UserWarning, stacklevel=3)
            continue
        records = samples_beside(path)
        for file in [path, *([records] if records.exists() else [])]:
            _copy_once(file, to / file.relative_to(run.folder))
    for path in sorted(run.folder.glob("statistics/*.safetensors")):
        if path.is_file() and is_statistics(path):
            _copy_once(path, to / path.relative_to(run.folder))
    for path in sorted(run.folder.glob("plans/*.json")):
        target = to / path.relative_to(run.folder)
        try:
            fingerprint = PruningPlan.load(path).fingerprint
        except PlanError as error:
            warnings.warn(f"{error}: it is not copied", UserWarning, stacklevel=3)
            continue
        if target.exists() and PruningPlan.load(target).fingerprint != fingerprint:
            target = target.with_name(f"{target.stem}-{fingerprint[:8]}.json")
        _copy_once(path, target)


def _copy_once(path: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _failures(first: Run, second: Run, measurements: Sequence[Measurement]) -> list[Failure]:
    """Failures of either run that were measured in neither."""
    measured = {label_of(m) for m in measurements} | {m.model for m in measurements}
    for m in measurements:
        fields = m.model_dump(include={"model", "method", "ratio", "achieved_ratio", "seed"})
        measured.add(f"{CellId(fingerprint='', dtype='', **fields).label}: {m.benchmark}")
    return [failure for failure in _once([*first.failures, *second.failures]) if failure.cell not in measured]


def _once(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
