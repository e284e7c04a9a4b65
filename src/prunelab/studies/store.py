"""The folder that measurements are kept in, and their tables.

One file a benchmark a cell, named by a key of everything that decides its figures, written aside and renamed: a run
killed at any moment loses at most the benchmark in flight, and figures of different models are never mixed.
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
"""Characters of a benchmark's name in the name of a file: with what is added it stays below 255."""


def samples_beside(path: Path) -> Path:
    """Where the sample records of a measurement file lie."""
    return path.with_suffix(".samples.parquet")


class ResultsStore:
    """A run's folder.

    Args:
        run: the folder; it is made when the first thing is written.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def path(self, cell: CellId, benchmark: str, identity: Mapping[str, Any]) -> Path:
        """Where a benchmark's measurements of a cell are kept."""
        return self.run / "cells" / place_of(cell, benchmark, identity)

    def read(self, path: Path, cell: CellId | None = None) -> list[Measurement] | None:
        """The measurements in a file; None where there is none.

        A file that is damaged, that belongs to another cell, benchmark or setting than its place says, or whose sample
        records are damaged, is named, set aside and counts as absent.

        Args:
            path: from `path`.
            cell: the model that the file must be of.
        """
        kept = read_stored(path)
        if isinstance(kept, StoredResult) and cell is not None and kept.cell != cell:
            kept = f"is not believed, it is of {kept.cell.label} and not of {cell.label} as it is now"
        if isinstance(kept, str):
            set_aside(path, kept, "measured anew")
            return None
        return None if kept is None else list(kept.measurements)

    def take_over(self, path: Path, cell: CellId) -> StoredResult | None:
        """Keep the measurements of another cell that is the same model as this one's too; None where there is none.

        Two methods, or two draws of the calibration text, often arrive at the same cut. The files' names tell: their
        key is made of the weights, the plan and the conditions, not of what the plan is called.

        Args:
            path: from `path`; nothing is there yet.
            cell: the model measured, as it is called now.

        Returns:
            The measurements as they are kept now, and the cell that they were made for.
        """
        called: dict[str, Any] = {name: getattr(cell, name) for name in ("method", "ratio", "achieved_ratio", "seed")}
        called["seconds"] = 0.0
        for other in sorted(self.run.glob(f"cells/*/{path.name}")):
            kept = read_stored(other)
            if isinstance(kept, StoredResult):
                found = [m.model_copy(update=called) for m in kept.measurements]
                if kept.records is not None:
                    with atomic_file(samples_beside(path)) as aside:
                        shutil.copyfile(samples_beside(other), aside)
                self._write(path, cell, found, kept.records, kept.identity)
                return replace(kept, measurements=found)
        return None

    def write(
        self,
        path: Path,
        cell: CellId,
        measurements: Sequence[Measurement],
        samples: Sequence[Any] = (),
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a benchmark's measurements and, beside them, one row a sample.

        Args:
            path: from `path`.
            cell: the model measured.
            measurements: the figures.
            samples: the records.
            identity: what decided the figures besides the model, for comparisons of runs.
        """
        records = None
        if samples:
            with atomic_file(samples_beside(path)) as aside:
                pd.DataFrame(list(samples)).to_parquet(aside)
                records = _file_hash(aside)
        self._write(path, cell, measurements, records, identity or {})

    def _write(
        self,
        path: Path,
        cell: CellId,
        measurements: Sequence[Measurement],
        records: str | None,
        identity: Mapping[str, Any],
    ) -> None:
        """Write the measurements; `records` is the hash of the sample records beside them."""
        fields = {
            "format": FORMAT,
            "cell": cell.model_dump(mode="json"),
            "identity": dict(identity),
            "samples": records,
            "measurements": [m.model_dump(mode="json") for m in measurements],
        }
        fields = json.loads(json.dumps(fields, default=str))  # as they are read: lists for tuples, texts for the rest
        write_text(path, json.dumps({**fields, "hash": content_hash(fields)}, indent=1) + "\n")

    def take(self, name: str, content: bytes) -> None:
        """Keep a file of the run that was written elsewhere, unless it is there.

        Args:
            name: its path below the run's folder.
            content: what it holds.
        """
        path = inside(self.run, name)
        if not path.exists():
            with atomic_file(path) as aside:
                aside.write_bytes(content)

    def measurements(self) -> list[Measurement]:
        """Everything that the run has measured, in a fixed order."""
        found = [self.read(path) or [] for path in sorted(self.run.glob("cells/*/*.json"))]
        return [m for measurements in found for m in measurements]


@dataclass(frozen=True)
class StoredResult:
    """What a measurement file holds.

    Attributes:
        cell: the model measured.
        identity: what decided the figures besides the model.
        measurements: the figures, all of one benchmark, one of them primary.
        records: hash of the sample records beside it; None where there are none.
    """

    cell: CellId
    identity: Mapping[str, Any]
    measurements: Sequence[Measurement]
    records: str | None


def place_of(cell: CellId, benchmark: str, identity: Mapping[str, Any]) -> Path:
    """Where below `cells` the measurements belong: the names hold a hash of all that decides the figures."""
    key = content_hash({"cell": cell.key, "benchmark": benchmark, **identity})[:8]
    return Path(cell.name, f"{slug(benchmark)[:NAME_LENGTH]}-{key}.json")


def read_stored(path: Path) -> StoredResult | str | None:
    """A measurement file's contents; None where there is no file; why it is not believed where it is not.

    Believed is a file whose hash is that of its contents, that lies where its cell, benchmark and settings belong, and
    whose sample records are those that were written with it. Nothing is moved: that is for `ResultsStore.read`.
    """
    if not os.path.lexists(path):
        return None
    try:
        fields = read_json_object(path, nonfinite=True)
        kept = StoredResult(
            CellId.model_validate(fields["cell"]),
            fields.get("identity") or {},
            [Measurement.model_validate(row) for row in fields["measurements"]],
            fields.get("samples"),
        )
    except (DataError, KeyError, TypeError, ValidationError):
        return "is damaged"
    return _hash_fault(fields) or _place_fault(path, kept) or _records_fault(samples_beside(path), kept.records) or kept


def _hash_fault(fields: Mapping[str, Any]) -> str | None:
    """What is wrong with a measurement file's hash."""
    if "hash" not in fields:
        return "is not believed, it has no hash of its figures"
    # The first format's hash is of the figures alone.
    names = [name for name in fields if name != "hash"] if fields.get("format") == FORMAT else ["measurements"]
    if fields["hash"] != content_hash({name: fields[name] for name in names}):
        return "is damaged, its figures are not those that were written"
    return None


def _place_fault(path: Path, kept: StoredResult) -> str | None:
    """Whether a measurement file is of one benchmark of one cell, and lies where these belong."""
    benchmark = next((m.benchmark for m in kept.measurements if m.primary), None)
    if benchmark is None or not isinstance(kept.identity, dict):
        return "is damaged"
    if any(_of(m) != _of(kept.cell) or m.benchmark != benchmark for m in kept.measurements):
        return f"is not believed, its figures are not all {benchmark}'s of {kept.cell.label}"
    if Path(path.parent.name, path.name) != place_of(kept.cell, benchmark, kept.identity):
        return f"is not believed, it holds {benchmark} of {kept.cell.label} and lies where something else belongs"
    return None


def _records_fault(records: Path, recorded: object) -> str | None:
    """Whether the sample records beside a measurement file are those that were written with it."""
    if recorded is None and records.exists():
        return f"is not believed, it does not know of the sample records beside it ({records.name})"
    if recorded is not None and not (records.is_file() and _file_hash(records) == recorded):
        return f"is of no use, its sample records ({records.name}) are damaged or missing"
    return None


def _of(what: CellId | Measurement) -> tuple[object, ...]:
    """What a cell and each of its figures have in common."""
    return what.model, what.method, what.ratio, what.achieved_ratio, what.seed, what.plan


def set_aside(path: Path, what: str, remedy: str) -> None:
    """Rename a file that is not believed, and the sample records beside it, and say so."""
    number = next(number for number in count(1) if not os.path.lexists(_aside(path, number)))
    path.rename(_aside(path, number))
    records = samples_beside(path)
    if path.suffix == ".json" and records.exists():
        records.replace(_aside(records, number))
    warnings.warn(f"{path} {what}: set aside as {_aside(path, number).name} and {remedy}", UserWarning, stacklevel=3)


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}{'' if number == 1 else f'.{number}'}.damaged")


def _file_hash(path: Path) -> str:
    return str(xxhash.xxh3_64_hexdigest(path.read_bytes()))


def to_frame(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as a table, one a row."""
    rows = [m.row() for m in measurements]
    return pd.DataFrame(rows, columns=None if rows else list(Measurement.model_fields))


def write_csv(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.csv`, whole or not at all."""
    with atomic_file(path) as aside:
        aside.write_text(to_frame(measurements).to_csv(index=False), encoding="utf-8")


def write_parquet(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.parquet`, whole or not at all; a column of several types holds texts."""
    frame = to_frame(measurements)
    for name in [name for name, kind in frame.dtypes.items() if kind.name == "object"]:
        types = {type(value) for value in frame[name].dropna()}
        if len(types) > 1 and types != {int, float}:
            frame[name] = frame[name].map(str, na_action="ignore")
    with atomic_file(path) as aside:
        frame.to_parquet(aside, index=False)
