"""A run's folder, read back: what the report, the recommendation and comparisons of runs are made from."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from prunelab.errors import DataError, InvalidRequest
from prunelab.evaluation.benchmarks import find_benchmark
from prunelab.io.atomic_write import write_text
from prunelab.io.html import html_table
from prunelab.io.paths import local_path
from prunelab.io.structured import read_json
from prunelab.pruning.plan_summary import PlannedCut, planned_cuts
from prunelab.studies.comparison import Difference, adjusted, difference, write_comparisons
from prunelab.studies.config import StudyConfig, read_config, study_config
from prunelab.studies.duplicates import DuplicateCuts
from prunelab.studies.run_folder import FAILURES, INDEX, STUDY, files_of, index_text
from prunelab.studies.store import Measurement, StoredResult, read_stored, samples_beside, write_csv, write_parquet

SETTINGS = ("limit", "window", "completions", "temperature")
"""What a study says once for all of its benchmarks, and a measurement file of each that it decides."""


@dataclass(frozen=True)
class Failure:
    """A cell that could not be measured, and why; `fault` tells a mistake of ours from one that the user can mend."""

    cell: str
    error: str
    fault: bool


@dataclass(frozen=True)
class Measured:
    """One benchmark of one cell.

    Attributes:
        path: the measurement file.
        measurements: its figures, the primary first.
    """

    path: Path
    measurements: Sequence[Measurement]

    @property
    def primary(self) -> Measurement:
        """The figure to judge the benchmark by."""
        return next(m for m in self.measurements if m.primary)

    @cached_property
    def samples(self) -> pd.DataFrame | None:
        """One row a sample, where records were kept."""
        return self.read_samples()

    def read_samples(self) -> pd.DataFrame | None:
        """As `samples`, read anew."""
        records = samples_beside(self.path)
        return pd.read_parquet(records) if records.exists() else None


@dataclass(frozen=True, repr=False)
class Run:
    """What a study found.

    Attributes:
        folder: the run's.
        config: how the study was asked for.
        measured: every benchmark of every cell, in the order of the grid.
        differences: each pruned cell's primary figures against the dense model's.
        failures: what could not be measured.
    """

    folder: Path
    config: StudyConfig
    measured: Sequence[Measured] = ()
    differences: Sequence[Difference] = ()
    failures: Sequence[Failure] = ()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.measured)} measured, {len(self.failures)} failed)"

    def _repr_html_(self) -> str:
        """One row a cell and one column a benchmark's primary figure, for notebooks."""
        significant = {
            (d.measurement.plan, d.measurement.benchmark, d.measurement.shots)
            for d in self.differences
            if d.comparison.significant
        }
        rows: dict[tuple[str, str, float, int | None], dict[str, str]] = {}
        for m in (one.primary for one in self.measured):
            column = m.benchmark if m.shots is None else f"{m.benchmark} ({m.shots}-shot)"
            mark = "*" if (m.plan, m.benchmark, m.shots) in significant else ""
            rows.setdefault((m.model, m.method, m.ratio, m.seed), {})[column] = f"{m.value:.4g}{mark}"
        columns = list(dict.fromkeys(column for figures in rows.values() for column in figures))
        cells = [
            (model, method, f"{ratio:.0%}", "" if seed is None else seed, *(figures.get(c, "") for c in columns))
            for (model, method, ratio, seed), figures in rows.items()
        ]
        caption = f"{self.folder}: * significantly different from the dense model (paired test, Holm-adjusted p < 0.05)"
        return html_table(("model", "method", "ratio", "seed", *columns), cells, caption)

    @cached_property
    def measurements(self) -> list[Measurement]:
        """Every figure."""
        return [m for one in self.measured for m in one.measurements]

    @cached_property
    def duplicates(self) -> DuplicateCuts:
        """Which cuts are the same model as one before."""
        return DuplicateCuts.of(self.measurements)

    @cached_property
    def planned(self) -> Mapping[str, PlannedCut]:
        """The plans of the cells in numbers, by fingerprint."""
        return planned_cuts(self.folder / "plans", {m.plan for m in self.measurements})

    def write(self) -> None:
        """Write the tables, what failed, and which files hold the figures."""
        write_csv(self.folder / "results.csv", self.measurements)
        write_parquet(self.folder / "results.parquet", self.measurements)
        write_comparisons(self.folder / "comparisons.csv", self.differences)
        write_text(self.folder / "failures.json", json.dumps([asdict(f) for f in self.failures], indent=1) + "\n")
        write_text(self.folder / INDEX, index_text([str(one.path.relative_to(self.folder)) for one in self.measured]))


def load_run(folder: Path) -> Run:
    """Read a run's folder; nothing in it is changed.

    What follows from the measurement files, such as comparisons, is computed from them and not read.

    Raises:
        InvalidRequest: no finished run is there, or a file of it is missing, damaged or not believed.
    """
    if not (local_path(folder) / INDEX).is_file():
        raise InvalidRequest(f"{folder} is no finished run: give the folder that `prunelab study --out` wrote")
    config = study_config(read_config(folder / STUDY), str(folder / STUDY))
    try:
        paths = files_of(folder, read_json(folder / INDEX))
    except DataError:
        paths = None
    if paths is None:
        warnings.warn(
            f"{folder / INDEX} is damaged: the run is read from its measurement files; run its study again, which "
            "makes the index anew",
            UserWarning,
            stacklevel=2,
        )
        measured = _in_order(
            [
                one
                for path in sorted(folder.glob("cells/*/*.json"))
                if _other_setting(kept := _stored(path), config) is None
                for one in [Measured(path, list(kept.measurements))]
            ],
            config,
            folder,
        )
    else:
        measured = [_believed(path, config) for path in paths]
    failures = _failures(folder / FAILURES)
    return Run(folder, config, measured, Compared(lambda: compared_to_dense(measured)), failures)


class Compared(Sequence[Difference]):
    """Comparisons that are made when they are first looked at: of a large run they take minutes.

    Args:
        compare: makes them.
    """

    def __init__(self, compare: Callable[[], Sequence[Difference]]) -> None:
        self._compare = compare

    @cached_property
    def _made(self) -> Sequence[Difference]:
        return self._compare()

    @overload
    def __getitem__(self, index: int) -> Difference: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Difference]: ...

    def __getitem__(self, index: int | slice) -> Difference | Sequence[Difference]:
        return self._made[index]

    def __len__(self) -> int:
        return len(self._made)


def _believed(path: Path, config: StudyConfig) -> Measured:
    """A measurement file of a run.

    Raises:
        InvalidRequest: it is missing, damaged, not believed, or of other settings than the run's study.
    """
    kept = _stored(path)
    other = _other_setting(kept, config)
    if other is not None:
        raise _refused(path, f"was measured with {other}")
    return Measured(path, list(kept.measurements))


def _stored(path: Path) -> StoredResult:
    """What a measurement file holds.

    Raises:
        InvalidRequest: it is missing, damaged or not believed.
    """
    kept = read_stored(path)
    if isinstance(kept, StoredResult):
        return kept
    raise _refused(path, "is missing" if kept is None else kept)


def _refused(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {why}: it is left as it is; run the study again, which measures it anew")


def _other_setting(kept: StoredResult, config: StudyConfig) -> str | None:
    """In which setting a measurement file differs from the run's study; None where in none."""
    for name in SETTINGS:
        asked = getattr(config, name)
        if name in kept.identity and kept.identity[name] != asked:
            return f"{name} {kept.identity[name]}, and {STUDY} says {asked}"
    return None


def _in_order(measured: Sequence[Measured], config: StudyConfig, folder: Path) -> list[Measured]:
    """Measurement files in the order of the grid.

    Raises:
        InvalidRequest: two are of the same benchmark of the same cell, so that only the study can tell which counts.
    """
    keys = [_key(one.primary.row()) for one in measured]
    twice = next((one.path for one, key in zip(measured, keys, strict=True) if keys.count(key) > 1), None)
    if twice is not None:
        raise InvalidRequest(
            f"{folder / INDEX} is damaged, and {twice.name} is not the only file of its benchmark and cell: run the "
            "study again, it keeps what is whole"
        )
    names = [entry.title for entry in config.models]
    benchmarks = [*config.benchmarks, *(name for entry in config.models for name in entry.benchmarks or ())]
    titles = list(dict.fromkeys(find_benchmark(name).name for name in benchmarks))
    orders = (names, ["dense", *config.methods], [0.0, *config.ratios], titles)

    def place(one: Measured) -> tuple[object, ...]:
        m = one.primary
        values: tuple[tuple[Any, Sequence[Any]], ...] = tuple(
            zip((m.model, m.method, m.ratio, m.benchmark), orders, strict=True)
        )
        order = [known.index(value) if value in known else len(known) for value, known in values]
        return (*order[:3], m.seed or 0, order[3], m.shots or 0, str(one.path))

    return sorted(measured, key=place)


def _failures(path: Path) -> list[Failure]:
    """The cells that could not be measured.

    Raises:
        InvalidRequest: the file is missing or damaged.
    """
    remedy = "run its study again, it keeps what is whole"
    fields = read_json(path, error=InvalidRequest, remedy=remedy)
    try:
        return TypeAdapter(list[Failure]).validate_python(fields, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{path} is damaged ({where}: {first['msg']}): {remedy}") from None


def compared_to_dense(measured: Iterable[Measured]) -> list[Difference]:
    """Paired tests of every pruned cell's primary figures against the dense model's, adjusted over its benchmarks."""
    dense: dict[tuple[object, ...], Measured] = {}
    cells: dict[tuple[object, ...], list[Measured]] = {}
    for one in measured:
        m = one.primary
        if m.method == "dense":
            dense[m.model, m.benchmark, m.shots] = one
        else:
            cells.setdefault((m.model, m.method, m.ratio, m.seed, m.plan), []).append(one)
    found: list[Difference] = []
    for own in cells.values():
        pairs = [(one, dense.get((one.primary.model, one.primary.benchmark, one.primary.shots))) for one in own]
        compared = [
            difference(find_benchmark(one.primary.benchmark), one.primary, base.samples, one.read_samples())
            for one, base in pairs
            if base is not None
        ]
        found += adjusted([one for one in compared if one is not None])
    return found


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one benchmark of one cell from all others."""
    whole = (_number(row[name]) for name in ("seed", "shots"))
    return (row["model"], row["method"], round(float(row["ratio"]), 9), row["benchmark"], *whole)


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
