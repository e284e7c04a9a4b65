"""What was measured of which model, one row a figure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from prunelab.io.fingerprint import content_hash

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks import Benchmark, Evaluation

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


def times_as_fast(speed: Measurement, dense: float) -> float:
    """A speed in times the dense model's: as measured in turn with it, else by the dense model's own figure."""
    measured = speed.details.get("times_as_fast")
    return float(measured) if isinstance(measured, int | float) else speed.value / dense


class CellId(BaseModel):
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
        return slug(f"{self.model[:200]}-{self.method}{ratio}-{self.key}")

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


def measurements_of(
    cell: CellId, benchmark: Benchmark, evaluation: Evaluation, seconds: float, details: dict[str, Scalar]
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
