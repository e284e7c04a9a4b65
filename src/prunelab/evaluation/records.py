"""Records of evaluation results, one row per metric value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from prunelab.io.fingerprint import content_hash

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks import Benchmark, Evaluation

Scalar = str | float | int | bool | None


class Measurement(BaseModel):
    """One metric value of one model.

    Attributes:
        model: name of the dense model.
        method: the pruning method; `dense` for the dense model.
        ratio: requested share of the blocks' projection weights.
        achieved_ratio: removed share.
        benchmark: name of the benchmark.
        metric: name of the metric.
        value: the value.
        standard_error: standard error of the value; None if none is defined.
        n: number of documents, or of other units that are averaged.
        shots: examples in the prompt; None for benchmarks without shots.
        seed: seed of a method or calibration that draws at random.
        seconds: duration of the whole benchmark.
        plan: fingerprint of the plan; None for the dense model.
        group: part of the benchmark, such as a subject; empty for the whole benchmark.
        primary: whether this is the benchmark's primary metric.
        details: further conditions: dtype, device, window, split, versions.
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
        """As one flat row, in the column order of `results.csv`."""
        row = self.model_dump(exclude={"details"})
        return {**row, **self.details}


def times_as_fast(speed: Measurement, dense: float) -> float:
    """Speed relative to the dense model: as measured in alternation with it, else from the dense model's value."""
    measured = speed.details.get("times_as_fast")
    return float(measured) if isinstance(measured, int | float) else speed.value / dense


class CellId(BaseModel):
    """Identity of an evaluated model: the dense model and the plan.

    Attributes:
        fingerprint: fingerprint of the dense model's weights.
        dtype: dtype of the evaluation.
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
        """Hash of dense model, plan and dtype; 8 hexadecimal digits."""
        return content_hash({"model": self.fingerprint, "plan": self.plan, "dtype": self.dtype})[:8]

    @property
    def name(self) -> str:
        """A readable file name that ends in the key."""
        seed = "" if self.seed is None else f"-s{self.seed}"
        ratio = "" if self.method == "dense" else f"-{100 * self.ratio:g}{seed}"
        return slug(f"{self.model[:200]}-{self.method}{ratio}-{self.key}")

    @property
    def label(self) -> str:
        """A label for progress lines."""
        if self.method == "dense":
            return f"{self.model} dense"
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.model} {self.method} {self.ratio:.0%} (achieved {self.achieved_ratio:.1%}){seed}"


def slug(text: str) -> str:
    """The text with all characters replaced that are unsafe in file names."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)


def measurements_of(
    cell: CellId, benchmark: Benchmark, evaluation: Evaluation, seconds: float, details: dict[str, Scalar]
) -> list[Measurement]:
    """A benchmark's scores as measurements."""
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
