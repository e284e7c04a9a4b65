"""A user's requirement, and its resolution against a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prunelab.analysis.claims.evidence import Evidence, higher_is_better
from prunelab.errors import InvalidRequest, UnknownName
from prunelab.io.bounds import MEMORY, SPEEDUP, WEIGHT, check_all

THROUGHPUT = "throughput"
NO_QUALITY = {
    THROUGHPUT: "speed, which --speedup asks for",
    "stereoset": "bias, which is low in a collapsed model",
}
"""Benchmarks that do not measure quality, with what they measure."""
KEEP = 0.95
"""Default share of quality to retain."""


@dataclass(frozen=True)
class Need:
    """A user's requirement.

    Attributes:
        keep: minimum share of the dense model's quality, above 0 and at most 1.
        benchmarks: the benchmarks that define quality; empty for all benchmarks of the run.
        weights: weights of benchmarks, 1 by default.
        speedup: minimum multiple of the dense model's generation speed.
        memory: maximum memory in bytes.
        model: name of the run's model; may be None if the run has one model.
    """

    keep: float | None = None
    benchmarks: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    speedup: float | None = None
    memory: float | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        """Validate the values."""
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InvalidRequest(f"keeping {self.keep:.4g} of 1 is not possible: give a share above 0% and up to 100%")
        check_all({"speedup": self.speedup, "memory": self.memory}, {"speedup": SPEEDUP, "memory": MEMORY})
        for name, weight in self.weights.items():
            WEIGHT.check(f"weight {name}", weight)

    def share(self, benchmark: str) -> float:
        """A benchmark's share of the total weight."""
        total = math.fsum(self.weights.get(name, 1.0) for name in self.benchmarks)
        return self.weights.get(benchmark, 1.0) / total


def resolved(evidence: Evidence, need: Need) -> tuple[str, Need, list[str]]:
    """The model, the requirement with benchmarks and defaults filled in, and the excluded benchmarks with reasons.

    Raises:
        InvalidRequest: the run lacks a named model, benchmark or measurement.
    """
    model = _model(evidence, need)
    there = list(dict.fromkeys(m.benchmark for m in evidence.run.measurements if m.model == model and m.primary))
    for name in (*need.benchmarks, *need.weights):
        if name in NO_QUALITY:
            raise InvalidRequest(f"{name} measures {NO_QUALITY[name]}, not quality: remove it")
        if name not in there:
            raise UnknownName(f"benchmark that was measured on {model}", name, there)
    for option, value in (("--speedup", need.speedup), ("--memory", need.memory)):
        if value is not None and evidence.figure(model, THROUGHPUT) is None:
            raise InvalidRequest(
                f"{option} requires throughput, which the run did not measure: measure it, or omit {option}"
            )
    wanted = need.benchmarks or tuple(name for name in there if name not in NO_QUALITY)
    for name in need.weights:
        if name not in wanted:
            raise InvalidRequest(f"a weight is given for {name}, which is not selected: add --benchmark {name}")
    informative = tuple(name for name in wanted if not higher_is_better(name) or evidence.has_skill(model, name))
    if not informative:
        raise InvalidRequest(f"{model} is not above chance on any quality benchmark; measured: {', '.join(there)}")
    left_out = [f"{name}: the dense model is at chance" for name in wanted if name not in informative]
    left_out += [
        f"{name}: it measures {why}" for name, why in NO_QUALITY.items() if name in there and name != THROUGHPUT
    ]
    asked = need.keep is not None or need.speedup is not None or need.memory is not None
    return model, replace(need, model=model, benchmarks=informative, keep=need.keep if asked else KEEP), left_out


def _model(evidence: Evidence, need: Need) -> str:
    if not evidence.models:
        raise InvalidRequest("the run has no measurements: run its study again")
    if need.model is None and len(evidence.models) > 1:
        raise InvalidRequest(f"the run has several models: give --model with one of {', '.join(evidence.models)}")
    model = need.model or evidence.models[0]
    if model not in evidence.models:
        raise UnknownName("model of this run", model, evidence.models)
    return model
