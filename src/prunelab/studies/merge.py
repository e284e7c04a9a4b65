"""Two runs in one folder: nothing lost, nothing half written, nothing that contradicts itself."""

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
"""What makes the grid: of both runs' the union is taken."""

ENTRY = {"dtype", "device", "chat_template"}
"""What a model may say for itself: where the runs differ in it, every model does."""

PLACES = {"datasets_root", "out", "allow_code_execution", "allow_untrained_punkt", "trackers"}
"""What says nothing about the figures: the first run's is taken."""


def merge_runs(first: Run, second: Run, out: Path, prefer: Run | None = None) -> Run:
    """Write a folder that holds both runs, with comparisons over all of it.

    Args:
        first: one run.
        second: the other.
        out: the folder to write.
        prefer: whose figures to keep where both measured the same and the figures differ, which is refused otherwise.

    Raises:
        InvalidRequest: the runs measured the same differently, or were made differently; both are named.
        OutputExists: `out` exists.
    """
    config = merged_config(first.config, second.config).model_copy(update={"out": out})
    conflicts = _conflicts(first, second)
    if prefer is None:
        _refuse(conflicts, first, second)
    left_out = {one.path if prefer is second else other.path for one, other in conflicts}
    by_file: dict[Path, Measured] = {}
    for run in (first, second):
        for one in run.measured:
            if one.path not in left_out:
                by_file.setdefault(one.path.relative_to(run.folder), one)
    with atomic_folder(out) as aside:
        for run in (first, second):
            _copy(run, aside, left_out)
        measured = [Measured(aside / name, one.measurements) for name, one in by_file.items()]
        failures = _failures(first, second, [m for one in measured for m in one.measurements])
        write_config(aside / "study.yaml", config)
        Run(aside, config, measured, compared_to_dense(measured), failures).write()
    return load_run(out)


def merged_config(first: StudyConfig, second: StudyConfig) -> StudyConfig:
    """The configuration of both runs.

    Raises:
        InvalidRequest: they differ in what decides figures and cannot be said of one model alone.
    """
    left, right = first.model_dump(), second.model_dump()
    for key in StudyConfig.model_fields:
        if key not in GRID | ENTRY | PLACES and left[key] != right[key]:
            raise InvalidRequest(
                f"{first.out} and {second.out} were made with {key} {left[key]} and {right[key]}: one table would mix "
                "them; make one of them anew with the other's, or look at them with `prunelab compare`"
            )
    entries = [_spelled_out(entry, config) for config in (first, second) for entry in config.models]
    union: dict[str, Any] = {
        key: _once([*left[key], *right[key]]) for key in GRID - {"models", "suites"} if isinstance(left[key], tuple)
    }
    changes = {key: None for key in ENTRY if left[key] != right[key] and key != "chat_template"}
    models = tuple(_merged_entries(entries))
    return first.model_copy(update={**union, **changes, "suites": (), "models": models})


def _spelled_out(entry: ModelEntry, config: StudyConfig) -> ModelEntry:
    """A model with what it would take from its study."""
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
    """Each model once, with both runs' benchmarks, ratios and shots."""
    for name in _once(entry.title for entry in entries):
        own = [entry for entry in entries if entry.title == name]
        for key in ("path", "dtype", "chat_template"):
            found = _once(getattr(entry, key) for entry in own)
            if len(found) > 1:
                raise InvalidRequest(
                    f"{name} has {key} {found[0]} in one run and {found[1]} in the other: give it another name in one"
                )
        ratios = {
            benchmark: _once(
                ratio for entry in own for ratio in entry.benchmark_ratios.get(benchmark, entry.ratios or ())
            )
            for entry in own
            for benchmark in entry.benchmark_ratios
        }
        update: dict[str, Any] = {
            key: _once(value for entry in own for value in getattr(entry, key))
            for key in ("benchmarks", "ratios", "shots")
        }
        yield own[0].model_copy(update={**update, "benchmark_ratios": ratios})


def _conflicts(first: Run, second: Run) -> list[tuple[Measured, Measured]]:
    """What both measured, not with the same figures."""
    right = {key_of(one.primary): one for one in second.measured}
    pairs = [(one, right[key_of(one.primary)]) for one in first.measured if key_of(one.primary) in right]
    return [(one, other) for one, other in pairs if _figures(one) != _figures(other)]


def _refuse(conflicts: Sequence[tuple[Measured, Measured]], first: Run, second: Run) -> None:
    named = []
    for one, other in conflicts:
        settings = differing_settings(one, other)
        plans = [] if one.primary.plan == other.primary.plan else ["other plans"]
        why = "; ".join([*settings, *plans]) or f"{one.primary.value:.6g} and {other.primary.value:.6g}"
        named.append(f"{label_of(one.primary)}, {one.primary.benchmark} ({why})")
    if named:
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        raise InvalidRequest(
            f"{first.folder} and {second.folder} differ in what both measured: {'; '.join(named[:3])}{more}: look at "
            "them with `prunelab compare`, and give --prefer a or b to keep that run's"
        )


def _figures(one: Measured) -> list[dict[str, Any]]:
    """The figures without what differs between two runs of the same."""
    return [m.model_dump(include={"metric", "value", "n", "group", "plan"}) for m in one.measurements]


def _copy(run: Run, to: Path, left_out: Collection[Path]) -> None:
    """Copy measurements, plans and statistics; what is there already is the same, what is not believed stays."""
    for path in sorted(set(run.folder.glob("cells/*/*.json")) - set(left_out)):
        kept = read_stored(path)
        if not isinstance(kept, StoredResult):
            warnings.warn(f"{path} {kept}: it is not copied", UserWarning, stacklevel=3)
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
    """What failed in either run and was measured in neither."""
    measured = {label_of(m) for m in measurements} | {m.model for m in measurements}
    for m in measurements:
        fields = m.model_dump(include={"model", "method", "ratio", "achieved_ratio", "seed"})
        measured.add(f"{CellId(fingerprint='', dtype='', **fields).label}: {m.benchmark}")
    return [one for one in _once([*first.failures, *second.failures]) if one.cell not in measured]


def _once(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
