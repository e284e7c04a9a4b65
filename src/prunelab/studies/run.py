"""A run's folder, read back: what the report, the recommendation and comparisons of runs are made from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks import find_benchmark
from prunelab.io.atomic_write import write_text
from prunelab.io.html import html_table
from prunelab.pruning.plan_summary import PlannedCut, planned_cuts
from prunelab.stats.paired_tests import Comparison
from prunelab.studies.comparison import Difference, adjusted, difference, write_comparisons
from prunelab.studies.config import StudyConfig, read_config, study_config
from prunelab.studies.duplicates import Twins
from prunelab.studies.store import Measurement, ResultsStore, samples_beside, write_csv, write_parquet

INDEX = "index.json"


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
    def twins(self) -> Twins:
        """Which cuts are the same model as one before."""
        return Twins.of(self.measurements)

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
        files = [str(one.path.relative_to(self.folder)) for one in self.measured]
        write_text(self.folder / INDEX, json.dumps({"files": files}, indent=1) + "\n")


def load_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        InvalidRequest: no run is there, or a file of it is missing or damaged.
    """
    try:
        files = json.loads((folder / INDEX).read_text(encoding="utf-8"))["files"]
        failures = [Failure(**one) for one in json.loads((folder / "failures.json").read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise InvalidRequest(
            f"{folder} is no finished run: give the folder that `prunelab study --out` wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{folder} is damaged ({error}): run its study again, it keeps what is whole") from None
    store = ResultsStore(folder)
    measured = []
    for name in files:
        found = store.read(folder / name)
        if not found:
            raise InvalidRequest(f"{folder / name} is missing or damaged: run the study again, which measures it anew")
        measured.append(Measured(folder / name, found))
    config = study_config(read_config(folder / "study.yaml"), str(folder / "study.yaml"))
    return Run(folder, config, measured, _differences(folder / "comparisons.csv", measured), failures)


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
            difference(find_benchmark(one.primary.benchmark), one.primary, base.path, one.path)
            for one, base in pairs
            if base is not None
        ]
        found += adjusted([one for one in compared if one is not None])
    return found


def _differences(path: Path, measured: Sequence[Measured]) -> list[Difference]:
    """The comparisons in `comparisons.csv`, each with its measurement."""
    if not path.exists():
        return []
    of = {_key(one.primary.row()): one.primary for one in measured}
    found = []
    # Not by pandas, whose default takes the last digit of a number lightly.
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        measurement = of.get(_key(row))
        if measurement is not None:
            comparison = Comparison(
                dense=float(row["dense"]),
                pruned=float(row["pruned"]),
                difference=float(row["difference"]),
                interval=(float(row["low"]), float(row["high"])),
                p=float(row["p"]),
                n=int(row["n"]),
                test=row["test"],
                p_adjusted=_number(row["p_holm"]),
            )
            found.append(Difference(measurement, find_benchmark(measurement.benchmark).higher_is_better, comparison))
    return found


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one benchmark of one cell from all others."""
    whole = (_number(row[name]) for name in ("seed", "shots"))
    return (row["model"], row["method"], round(float(row["ratio"]), 9), row["benchmark"], *whole)


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
