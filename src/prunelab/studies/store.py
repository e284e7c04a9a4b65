"""Storage of measurements in a run's folder, and their tables.

Each benchmark of each cell has one file, named by a hash of everything that determines its figures and written
atomically: a killed run loses at most the current benchmark, and figures of different models are never mixed.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import xxhash
from pydantic import ValidationError

from prunelab.errors import DataError
from prunelab.evaluation.records import CellId, Measurement, Scalar, measurements_of, slug
from prunelab.io.atomic_write import atomic_file, write_text
from prunelab.io.fingerprint import content_hash
from prunelab.io.lazy import pd
from prunelab.io.paths import inside
from prunelab.io.structured import read_json_object

__all__ = [
    "CellId",
    "Measurement",
    "ResultsStore",
    "Scalar",
    "StoredResult",
    "measurements_of",
    "place_of",
    "read_stored",
    "samples_beside",
    "set_aside",
    "slug",
    "to_frame",
    "write_csv",
    "write_parquet",
]

FORMAT = "prunelab/measurements/2"
NAME_LENGTH = 200
"""Maximum length of a benchmark's name in a file name, which stays below 255 characters with its suffixes."""


def samples_beside(path: Path) -> Path:
    """Path of the sample records of a measurement file."""
    return path.with_suffix(".samples.parquet")


class ResultsStore:
    """The measurements in a run's folder.

    Args:
        run: the folder; created by the first write.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def path(self, cell: CellId, benchmark: str, identity: Mapping[str, Any]) -> Path:
        """Path of the measurements of a benchmark of a cell."""
        return self.run / "cells" / place_of(cell, benchmark, identity)

    def read(self, path: Path, cell: CellId | None = None) -> list[Measurement] | None:
        """Read the measurements in a file; None if there is none.

        A file is invalid if it or its sample records are damaged, or if it does not belong to the cell, benchmark and
        settings of its path. It is renamed with a warning and counts as missing.

        Args:
            path: from `path`.
            cell: the expected cell.
        """
        stored = read_stored(path)
        if isinstance(stored, StoredResult) and cell is not None and stored.cell != cell:
            stored = f"is not valid, it belongs to {stored.cell.label} and not to the current {cell.label}"
        if isinstance(stored, str):
            set_aside(path, stored, "measured again")
            return None
        return None if stored is None else list(stored.measurements)

    def take_over(self, path: Path, cell: CellId) -> StoredResult | None:
        """Copy the measurements of another cell with the same model; None if there is no such cell.

        Two methods, or two calibration sets, often result in the same cut. The file names show this: their hash covers
        the weights, the plan and the settings, but not the name of the method.

        Args:
            path: from `path`; must not exist yet.
            cell: the cell to copy the measurements to.

        Returns:
            The copied measurements, and the cell that they were measured for.
        """
        changes: dict[str, Any] = {name: getattr(cell, name) for name in ("method", "ratio", "achieved_ratio", "seed")}
        changes["seconds"] = 0.0
        for other in sorted(self.run.glob(f"cells/*/{path.name}")):
            stored = read_stored(other)
            if isinstance(stored, StoredResult):
                measurements = [m.model_copy(update=changes) for m in stored.measurements]
                if stored.records is not None:
                    with atomic_file(samples_beside(path)) as temporary:
                        shutil.copyfile(samples_beside(other), temporary)
                self._write(path, cell, measurements, stored.records, stored.identity)
                return replace(stored, measurements=measurements)
        return None

    def write(
        self,
        path: Path,
        cell: CellId,
        measurements: Sequence[Measurement],
        samples: Sequence[Any] = (),
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a benchmark's measurements and its sample records.

        Args:
            path: from `path`.
            cell: the cell.
            measurements: the figures.
            samples: sample records, one row per sample.
            identity: everything besides the model that determines the figures, for comparisons of runs.
        """
        records = None
        if samples:
            with atomic_file(samples_beside(path)) as temporary:
                pd.DataFrame(list(samples)).to_parquet(temporary)
                records = _file_hash(temporary)
        self._write(path, cell, measurements, records, identity or {})

    def _write(
        self,
        path: Path,
        cell: CellId,
        measurements: Sequence[Measurement],
        records: str | None,
        identity: Mapping[str, Any],
    ) -> None:
        """Write the measurements; `records` is the hash of their sample records."""
        fields = {
            "format": FORMAT,
            "cell": cell.model_dump(mode="json"),
            "identity": dict(identity),
            "samples": records,
            "measurements": [m.model_dump(mode="json") for m in measurements],
        }
        fields = json.loads(
            json.dumps(fields, default=str)
        )  # as they are read back: lists for tuples, strings for other types
        write_text(path, json.dumps({**fields, "hash": content_hash(fields)}, indent=1) + "\n")

    def take(self, name: str, content: bytes) -> None:
        """Store a file of the run that was written elsewhere, unless it exists.

        Args:
            name: its path below the run's folder.
            content: its content.
        """
        path = inside(self.run, name)
        if not path.exists():
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)

    def measurements(self) -> list[Measurement]:
        """All measurements of the run, in a fixed order."""
        by_file = [self.read(path) or [] for path in sorted(self.run.glob("cells/*/*.json"))]
        return [m for measurements in by_file for m in measurements]


@dataclass(frozen=True)
class StoredResult:
    """The content of a measurement file.

    Attributes:
        cell: the cell.
        identity: everything besides the model that determined the figures.
        measurements: the figures of one benchmark, one of them primary.
        records: hash of the sample records; None if there are none.
    """

    cell: CellId
    identity: Mapping[str, Any]
    measurements: Sequence[Measurement]
    records: str | None


def place_of(cell: CellId, benchmark: str, identity: Mapping[str, Any]) -> Path:
    """Path of measurements below `cells`, which contains a hash of everything that determines the figures."""
    key = content_hash({"cell": cell.key, "benchmark": benchmark, **identity})[:8]
    return Path(cell.name, f"{slug(benchmark)[:NAME_LENGTH]}-{key}.json")


def read_stored(path: Path) -> StoredResult | str | None:
    """Read a measurement file; None if it does not exist, or the reason why it is not valid.

    A file is valid if its hash matches its content, its path matches its cell, benchmark and settings, and its sample
    records are unchanged. Invalid files are not renamed here, but by `ResultsStore.read`.
    """
    if not os.path.lexists(path):
        return None
    try:
        fields = read_json_object(path, nonfinite=True)
        stored = StoredResult(
            CellId.model_validate(fields["cell"]),
            fields.get("identity") or {},
            [Measurement.model_validate(row) for row in fields["measurements"]],
            fields.get("samples"),
        )
    except (DataError, KeyError, TypeError, ValidationError):
        return "is damaged"
    return (
        _hash_fault(fields)
        or _place_fault(path, stored)
        or _records_fault(samples_beside(path), stored.records)
        or stored
    )


def _hash_fault(fields: Mapping[str, Any]) -> str | None:
    """Why the hash of a measurement file is not valid."""
    if "hash" not in fields:
        return "is not valid, it has no hash"
    # In the first format, the hash only covers the figures.
    names = [name for name in fields if name != "hash"] if fields.get("format") == FORMAT else ["measurements"]
    if fields["hash"] != content_hash({name: fields[name] for name in names}):
        return "is damaged, its figures do not match its hash"
    return None


def _place_fault(path: Path, stored: StoredResult) -> str | None:
    """Why the cell, benchmark or path of a measurement file is not valid."""
    benchmark = next((m.benchmark for m in stored.measurements if m.primary), None)
    if benchmark is None or not isinstance(stored.identity, dict):
        return "is damaged"
    if any(_of(m) != _of(stored.cell) or m.benchmark != benchmark for m in stored.measurements):
        return f"is not valid, not all of its figures belong to {benchmark} of {stored.cell.label}"
    if Path(path.parent.name, path.name) != place_of(stored.cell, benchmark, stored.identity):
        return f"is not valid, its path does not match its content, {benchmark} of {stored.cell.label}"
    return None


def _records_fault(records: Path, recorded: object) -> str | None:
    """Why the sample records of a measurement file are not valid."""
    if recorded is None and records.exists():
        return f"is not valid, it does not reference its sample records ({records.name})"
    if recorded is not None and not (records.is_file() and _file_hash(records) == recorded):
        return f"is not usable, its sample records ({records.name}) are damaged or missing"
    return None


def _of(what: CellId | Measurement) -> tuple[object, ...]:
    """The fields that a cell shares with its figures."""
    return what.model, what.method, what.ratio, what.achieved_ratio, what.seed, what.plan


def set_aside(path: Path, what: str, remedy: str) -> None:
    """Rename an invalid file and its sample records, with a warning."""
    number = next(number for number in count(1) if not os.path.lexists(_aside(path, number)))
    path.rename(_aside(path, number))
    records = samples_beside(path)
    if path.suffix == ".json" and records.exists():
        records.replace(_aside(records, number))
    warnings.warn(f"{path} {what}: renamed to {_aside(path, number).name} and {remedy}", UserWarning, stacklevel=3)


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}{'' if number == 1 else f'.{number}'}.damaged")


def _file_hash(path: Path) -> str:
    return str(xxhash.xxh3_64_hexdigest(path.read_bytes()))


def to_frame(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as a table, one per row."""
    rows = [m.row() for m in measurements]
    return pd.DataFrame(rows, columns=None if rows else list(Measurement.model_fields))


def write_csv(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.csv` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(to_frame(measurements).to_csv(index=False), encoding="utf-8")


def write_parquet(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.parquet` atomically; a column with mixed types is stored as strings."""
    frame = to_frame(measurements)
    for name in [name for name, kind in frame.dtypes.items() if kind.name == "object"]:
        types = {type(value) for value in frame[name].dropna()}
        if len(types) > 1 and types != {int, float}:
            frame[name] = frame[name].map(str, na_action="ignore")
    with atomic_file(path) as temporary:
        frame.to_parquet(temporary, index=False)
