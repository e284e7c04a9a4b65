"""The folder that measurements are kept in, and their tables.

One file a benchmark a cell, named by a key of everything that decides its figures, written aside and renamed: a run
killed at any moment loses at most the benchmark in flight, and figures of different models are never mixed.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import xxhash
from pydantic import ValidationError

from prunelab.errors import InvalidRequest
from prunelab.evaluation.records import Cell, Measurement, Scalar, measurements_of, slug
from prunelab.io.atomic_write import write_text, written_file
from prunelab.io.fingerprint import content_hash

__all__ = [
    "Cell",
    "Kept",
    "Measurement",
    "ResultsStore",
    "Scalar",
    "measurements_of",
    "read_kept",
    "samples_beside",
    "set_aside",
    "slug",
    "to_frame",
    "write_csv",
    "write_parquet",
]


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

    def path(self, cell: Cell, benchmark: str, identity: Mapping[str, Any]) -> Path:
        """Where a benchmark's measurements of a cell are kept."""
        key = content_hash({"cell": cell.key, "benchmark": benchmark, **identity})[:8]
        return self.run / "cells" / cell.name / f"{slug(benchmark)}-{key}.json"

    def read(self, path: Path) -> list[Measurement] | None:
        """The measurements in a file; None where there is none.

        A file that is damaged, or whose sample records are, is named, set aside and counts as absent.
        """
        kept = read_kept(path)
        if isinstance(kept, str):
            set_aside(path, kept, "measured anew")
            return None
        return None if kept is None else list(kept.measurements)

    def take_over(self, path: Path, cell: Cell) -> Kept | None:
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
            kept = read_kept(other)
            if isinstance(kept, Kept) and kept.cell is not None:
                found = [m.model_copy(update=called) for m in kept.measurements]
                if kept.records is not None:
                    with written_file(samples_beside(path)) as aside:
                        shutil.copyfile(samples_beside(other), aside)
                self._write(path, cell, found, kept.records, kept.identity)
                return replace(kept, measurements=found)
        return None

    def write(
        self,
        path: Path,
        cell: Cell,
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
            with written_file(samples_beside(path)) as aside:
                pd.DataFrame(list(samples)).to_parquet(aside)
                records = _file_hash(aside)
        self._write(path, cell, measurements, records, identity or {})

    def _write(
        self,
        path: Path,
        cell: Cell,
        measurements: Sequence[Measurement],
        records: str | None,
        identity: Mapping[str, Any],
    ) -> None:
        """Write the measurements; `records` is the hash of the sample records beside them."""
        rows = [m.model_dump(mode="json") for m in measurements]
        fields = {
            "cell": cell.model_dump(mode="json"),
            "identity": dict(identity),
            "hash": content_hash({"measurements": rows}),
            "samples": records,
            "measurements": rows,
        }
        write_text(path, json.dumps(fields, indent=1, default=str) + "\n")

    def take(self, name: str, content: bytes) -> None:
        """Keep a file of the run that was written elsewhere, unless it is there.

        Args:
            name: its path below the run's folder.
            content: what it holds.
        """
        path = self.run / name
        if not path.resolve().is_relative_to(self.run.resolve()):
            raise InvalidRequest(f"{name} lies outside the run's folder: it is not taken")
        if not path.exists():
            with written_file(path) as aside:
                aside.write_bytes(content)

    def measurements(self) -> list[Measurement]:
        """Everything that the run has measured, in a fixed order."""
        found = [self.read(path) or [] for path in sorted(self.run.glob("cells/*/*.json"))]
        return [m for measurements in found for m in measurements]


@dataclass(frozen=True)
class Kept:
    """What a measurement file holds.

    Attributes:
        cell: the model measured; None in a file that does not say.
        identity: what decided the figures besides the model; empty in a file that does not say.
        measurements: the figures.
        records: hash of the sample records beside it; None where there are none.
    """

    cell: Cell | None
    identity: Mapping[str, Any]
    measurements: Sequence[Measurement]
    records: str | None


def read_kept(path: Path) -> Kept | str | None:
    """A measurement file's contents; None where there is no file; what is wrong with it where it is damaged.

    Nothing is moved: that is for `ResultsStore.read`.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        rows = fields["measurements"]
        cell = Cell.model_validate(fields["cell"]) if fields.get("cell") else None
        measurements = [Measurement.model_validate(row) for row in rows]
        kept = Kept(cell, fields.get("identity") or {}, measurements, fields.get("samples"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValidationError):
        return "is damaged"
    if "hash" in fields and fields["hash"] != content_hash({"measurements": rows}):
        return "is damaged, its figures are not those that were written"
    records = samples_beside(path)
    if kept.records and not (records.exists() and _file_hash(records) == kept.records):
        return f"is of no use, its sample records ({records.name}) are damaged or missing"
    return kept


def set_aside(path: Path, what: str, remedy: str) -> None:
    """Rename a damaged file, and the sample records beside it, and say so."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    records = samples_beside(path)
    if path.suffix == ".json" and records.exists():
        records.replace(records.with_name(f"{records.name}.damaged"))
    warnings.warn(f"{path} {what}: set aside as {aside.name} and {remedy}", UserWarning, stacklevel=3)


def _file_hash(path: Path) -> str:
    return str(xxhash.xxh3_64_hexdigest(path.read_bytes()))


def to_frame(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as a table, one a row."""
    rows = [m.row() for m in measurements]
    return pd.DataFrame(rows, columns=None if rows else list(Measurement.model_fields))


def write_csv(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.csv`, whole or not at all."""
    with written_file(path) as aside:
        to_frame(measurements).to_csv(aside, index=False)


def write_parquet(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.parquet`, whole or not at all; a column of several types holds texts."""
    frame = to_frame(measurements)
    for name in [name for name, kind in frame.dtypes.items() if kind.name == "object"]:
        types = {type(value) for value in frame[name].dropna()}
        if len(types) > 1 and types != {int, float}:
            frame[name] = frame[name].map(str, na_action="ignore")
    with written_file(path) as aside:
        frame.to_parquet(aside, index=False)
