"""What was measured, and the folder it is kept in.

One file a benchmark a cell, named by a key of everything that decides its figures, written aside and renamed: a run
killed at any moment loses at most the benchmark in flight, and figures of different models are never mixed.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunelab.benchmarks import Benchmark, Evaluation
from prunelab.files import write_text, written_file
from prunelab.fingerprint import content_hash

Scalar = str | float | int | bool | None


class Measurement(BaseModel):
    """One figure of one model.

    Attributes:
        model: the dense model's name.
        method: the pruning method; `dense` for the model itself.
        ratio: share of the blocks' projection weights asked for.
        achieved_ratio: share removed.
        benchmark: the benchmark's name.
        metric: the figure's name.
        value: the figure.
        standard_error: of the value; None where none is defined.
        n: documents, or what else was averaged over.
        shots: examples in the prompt; None where the notion does not apply.
        seed: of a method or a calibration that draws.
        seconds: what the whole benchmark took.
        plan: fingerprint of the plan; None for the dense model.
        group: a part of the benchmark, such as a subject; empty for the whole.
        primary: whether this is the figure to judge the benchmark by.
        details: whatever else is known: number format, device, window, split, versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    method: str = "dense"
    ratio: float = 0.0
    achieved_ratio: float = 0.0
    benchmark: str
    metric: str
    value: float
    standard_error: float | None = None
    n: int
    shots: int | None = None
    seed: int | None = None
    seconds: float | None = None
    plan: str | None = None
    group: str = ""
    primary: bool = False
    details: dict[str, Scalar] = Field(default_factory=dict)

    def row(self) -> dict[str, Scalar]:
        """As one flat row; the order of its columns is that of `results.csv`."""
        row = self.model_dump(exclude={"details"})
        return {**row, **self.details}


class Cell(BaseModel):
    """One model as the study sees it: which dense model, cut how.

    Attributes:
        fingerprint: of the dense model's weights.
        dtype: number format of the evaluation.
        plan: fingerprint of the plan; None for the dense model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    fingerprint: str
    dtype: str
    method: str = "dense"
    ratio: float = 0.0
    achieved_ratio: float = 0.0
    seed: int | None = None
    plan: str | None = None

    @property
    def key(self) -> str:
        """Hash of what makes the model; 8 hexadecimal digits."""
        return content_hash({"model": self.fingerprint, "plan": self.plan, "dtype": self.dtype})[:8]

    @property
    def name(self) -> str:
        """What people read, and the key."""
        seed = "" if self.seed is None else f"-s{self.seed}"
        ratio = "" if self.method == "dense" else f"-{100 * self.ratio:g}{seed}"
        return slug(f"{self.model}-{self.method}{ratio}-{self.key}")

    @property
    def label(self) -> str:
        """What people read on a line of progress."""
        if self.method == "dense":
            return f"{self.model} dense"
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.model} {self.method} {self.ratio:.0%} (achieved {self.achieved_ratio:.1%}){seed}"


def slug(text: str) -> str:
    """A text as a file's name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)


def samples_beside(path: Path) -> Path:
    """Where the sample records of a measurement file lie."""
    return path.with_suffix(".samples.parquet")


def measurements_of(
    cell: Cell, benchmark: Benchmark, evaluation: Evaluation, seconds: float, details: dict[str, Scalar]
) -> list[Measurement]:
    """A benchmark's scores as rows."""
    conditions = dict(evaluation.conditions)
    shots = conditions.pop("shots", None)
    return [
        Measurement(
            model=cell.model,
            method=cell.method,
            ratio=cell.ratio,
            achieved_ratio=cell.achieved_ratio,
            benchmark=benchmark.name,
            metric=score.metric,
            value=score.value,
            standard_error=score.standard_error,
            n=score.n,
            shots=shots,
            seed=cell.seed,
            seconds=round(seconds, 3),
            plan=cell.plan,
            group=score.group,
            primary=score.metric == benchmark.primary and not score.group,
            details={"dtype": cell.dtype, **details, **conditions},
        )
        for score in evaluation.scores
    ]


class ResultsStore:
    """A run's folder.

    Args:
        run: the folder; it is made when the first thing is written.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def path(self, cell: Cell, benchmark: str, identity: dict[str, Any]) -> Path:
        """Where a benchmark's measurements of a cell are kept."""
        key = content_hash({"cell": cell.key, "benchmark": benchmark, **identity})[:8]
        return self.run / "cells" / cell.name / f"{slug(benchmark)}-{key}.json"

    def read(self, path: Path) -> list[Measurement] | None:
        """The measurements in a file; None where there is none.

        A damaged file is named, set aside and counts as absent.
        """
        if not path.exists():
            return None
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["measurements"]
            return [Measurement.model_validate(row) for row in rows]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValidationError):
            aside = path.with_suffix(".json.damaged")
            path.replace(aside)
            warnings.warn(f"{path} is damaged: set aside as {aside.name} and measured anew", UserWarning, stacklevel=2)
            return None

    def write(self, path: Path, cell: Cell, measurements: Sequence[Measurement], samples: Sequence[Any] = ()) -> None:
        """Keep a benchmark's measurements and, beside them, one row a sample."""
        if samples:
            with written_file(samples_beside(path)) as aside:
                pd.DataFrame(list(samples)).to_parquet(aside)
        rows = [m.model_dump(mode="json") for m in measurements]
        write_text(path, json.dumps({"cell": cell.model_dump(mode="json"), "measurements": rows}, indent=1) + "\n")

    def measurements(self) -> list[Measurement]:
        """Everything that the run has measured, in a fixed order."""
        found = [self.read(path) or [] for path in sorted(self.run.glob("cells/*/*.json"))]
        return [m for measurements in found for m in measurements]


def to_frame(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as a table, one a row."""
    rows = [m.row() for m in measurements]
    return pd.DataFrame(rows, columns=None if rows else list(Measurement.model_fields))


def write_csv(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write `results.csv`, whole or not at all."""
    with written_file(path) as aside:
        to_frame(measurements).to_csv(aside, index=False)
