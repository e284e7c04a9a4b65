"""Read a run's folder: the input of reports, recommendations and comparisons of runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from pydantic import TypeAdapter, ValidationError

from prunelab.errors import DataError, InvalidRequest
from prunelab.evaluation.benchmarks import find_benchmark
from prunelab.io.atomic_write import write_text
from prunelab.io.html import html_table
from prunelab.io.lazy import pd
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
    """A cell that could not be measured, and why; `fault` marks a bug, as opposed to an error that the user can fix."""

    cell: str
    error: str
    fault: bool


@dataclass(frozen=True)
class Measured:
    """The result of one benchmark of one cell.

    Attributes:
        path: the measurement file.
        measurements: the figures, the primary one first.
    """

    path: Path
    measurements: Sequence[Measurement]

    @property
    def primary(self) -> Measurement:
        """The primary figure."""
        return next(m for m in self.measurements if m.primary)

    @cached_property
    def samples(self) -> pd.DataFrame | None:
        """Sample records, one row per sample; None if there are none."""
        return self.read_samples()

    def read_samples(self) -> pd.DataFrame | None:
        """As `samples`, without caching."""
        records = samples_beside(self.path)
        return pd.read_parquet(records) if records.exists() else None


@dataclass(frozen=True, repr=False)
class Run:
    """The results of a study.

    Attributes:
        folder: the run's folder.
        config: the configuration of the study.
        measured: results of every benchmark of every cell, in the order of the grid.
        differences: comparisons of each pruned cell's primary figures with those of the dense model.
        failures: cells and benchmarks that could not be measured.
    """

    folder: Path
    config: StudyConfig
    measured: Sequence[Measured] = ()
    differences: Sequence[Difference] = ()
    failures: Sequence[Failure] = ()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.measured)} measured, {len(self.failures)} failed)"

    def _repr_html_(self) -> str:
        """Table for notebooks: one row per cell, one column per benchmark."""
        significant = {
            (d.measurement.plan, d.measurement.benchmark, d.measurement.shots)
            for d in self.differences
            if d.comparison.significant
        }
        rows: dict[tuple[str, str, float, int | None], dict[str, str]] = {}
        for m in (result.primary for result in self.measured):
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
        return [m for result in self.measured for m in result.measurements]

    @cached_property
    def duplicates(self) -> DuplicateCuts:
        """The cuts that are the same model as an earlier one."""
        return DuplicateCuts.of(self.measurements)

    @cached_property
    def planned(self) -> Mapping[str, PlannedCut]:
        """Summaries of the cells' plans, by fingerprint."""
        return planned_cuts(self.folder / "plans", {m.plan for m in self.measurements})

    def write(self) -> None:
        """Write the tables, the failures and the index of measurement files."""
        write_csv(self.folder / "results.csv", self.measurements)
        write_parquet(self.folder / "results.parquet", self.measurements)
        write_comparisons(self.folder / "comparisons.csv", self.differences)
        write_text(self.folder / "failures.json", json.dumps([asdict(f) for f in self.failures], indent=1) + "\n")
        write_text(
            self.folder / INDEX, index_text([str(result.path.relative_to(self.folder)) for result in self.measured])
        )


def load_run(folder: Path) -> Run:
    """Read a run's folder without changing it.

    Derived results, such as comparisons, are computed from the measurement files.

    Raises:
        InvalidRequest: the folder is not a finished run, or one of its files is missing, damaged or invalid.
    """
    if not (local_path(folder) / INDEX).is_file():
        raise InvalidRequest(f"{folder} is not a finished run: give the folder written by `prunelab study --out`")
    config = study_config(read_config(folder / STUDY), str(folder / STUDY))
    try:
        paths = files_of(folder, read_json(folder / INDEX))
    except DataError:
        paths = None
    if paths is None:
        warnings.warn(
            f"{folder / INDEX} is damaged: the run is read from its measurement files; run the study again to "
            "rebuild the index",
            UserWarning,
            stacklevel=2,
        )
        measured = _in_order(
            [
                measured_file
                for path in sorted(folder.glob("cells/*/*.json"))
                if _other_setting(stored := _stored(path), config) is None
                for measured_file in [Measured(path, list(stored.measurements))]
            ],
            config,
            folder,
        )
    else:
        measured = [_valid_result(path, config) for path in paths]
    failures = _failures(folder / FAILURES)
    return Run(folder, config, measured, Compared(lambda: compared_to_dense(measured)), failures)


class Compared(Sequence[Difference]):
    """Comparisons that are computed on first access, because they take minutes for a large run.

    Args:
        compare: computes the comparisons.
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


def _valid_result(path: Path, config: StudyConfig) -> Measured:
    """Read a measurement file of a run.

    Raises:
        InvalidRequest: it is missing, damaged, invalid, or of other settings than the run's study.
    """
    stored = _stored(path)
    other = _other_setting(stored, config)
    if other is not None:
        raise _refused(path, f"was measured with {other}")
    return Measured(path, list(stored.measurements))


def _stored(path: Path) -> StoredResult:
    """The content of a measurement file.

    Raises:
        InvalidRequest: it is missing, damaged or invalid.
    """
    stored = read_stored(path)
    if isinstance(stored, StoredResult):
        return stored
    raise _refused(path, "is missing" if stored is None else stored)


def _refused(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {why}: the file is not changed; run the study again to measure it again")


def _other_setting(stored: StoredResult, config: StudyConfig) -> str | None:
    """The setting in which a measurement file differs from the run's study; None if there is none."""
    for name in SETTINGS:
        asked = getattr(config, name)
        if name in stored.identity and stored.identity[name] != asked:
            return f"{name} {stored.identity[name]}, and {STUDY} says {asked}"
    return None


def _in_order(measured: Sequence[Measured], config: StudyConfig, folder: Path) -> list[Measured]:
    """Sort measurement files into the order of the grid.

    Raises:
        InvalidRequest: two files belong to the same benchmark and cell, and only the study can tell which is valid.
    """
    keys = [_key(result.primary.row()) for result in measured]
    repeated = next((result.path for result, key in zip(measured, keys, strict=True) if keys.count(key) > 1), None)
    if repeated is not None:
        raise InvalidRequest(
            f"{folder / INDEX} is damaged, and {repeated.name} is not the only file of its benchmark and cell: run the "
            "study again, which keeps valid files"
        )
    names = [entry.title for entry in config.models]
    benchmarks = [*config.benchmarks, *(name for entry in config.models for name in entry.benchmarks or ())]
    titles = list(dict.fromkeys(find_benchmark(name).name for name in benchmarks))
    orders = (names, ["dense", *config.methods], [0.0, *config.ratios], titles)

    def place(result: Measured) -> tuple[object, ...]:
        m = result.primary
        values: tuple[tuple[Any, Sequence[Any]], ...] = tuple(
            zip((m.model, m.method, m.ratio, m.benchmark), orders, strict=True)
        )
        order = [known.index(value) if value in known else len(known) for value, known in values]
        return (*order[:3], m.seed or 0, order[3], m.shots or 0, str(result.path))

    return sorted(measured, key=place)


def _failures(path: Path) -> list[Failure]:
    """Read the failures.

    Raises:
        InvalidRequest: the file is missing or damaged.
    """
    remedy = "run the study again, which keeps valid files"
    fields = read_json(path, error=InvalidRequest, remedy=remedy)
    try:
        return TypeAdapter(list[Failure]).validate_python(fields, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{path} is damaged ({where}: {first['msg']}): {remedy}") from None


def compared_to_dense(measured: Iterable[Measured]) -> list[Difference]:
    """Compare every pruned cell's primary figures with the dense model's, Holm-adjusted per cell."""
    dense: dict[tuple[object, ...], Measured] = {}
    cells: dict[tuple[object, ...], list[Measured]] = {}
    for result in measured:
        m = result.primary
        if m.method == "dense":
            dense[m.model, m.benchmark, m.shots] = result
        else:
            cells.setdefault((m.model, m.method, m.ratio, m.seed, m.plan), []).append(result)
    differences: list[Difference] = []
    for results in cells.values():
        pairs = [
            (result, dense.get((result.primary.model, result.primary.benchmark, result.primary.shots)))
            for result in results
        ]
        compared = [
            difference(find_benchmark(result.primary.benchmark), result.primary, base.samples, result.read_samples())
            for result, base in pairs
            if base is not None
        ]
        differences += adjusted([result for result in compared if result is not None])
    return differences


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Key that identifies one benchmark of one cell."""
    numbers = (_number(row[name]) for name in ("seed", "shots"))
    return (row["model"], row["method"], round(float(row["ratio"]), 9), row["benchmark"], *numbers)


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
