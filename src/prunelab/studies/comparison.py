"""Paired comparisons of each pruned cell with its dense model on the same samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunelab.io.atomic_write import atomic_file
from prunelab.io.lazy import pd
from prunelab.stats.paired_tests import Comparison, with_holm

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks import Benchmark
    from prunelab.studies.store import Measurement

SCALES = {"acc": 100.0, "acc_norm": 100.0, "exact_match": 100.0, "pass@1": 100.0, "inst_level_strict_acc": 100.0}


@dataclass(frozen=True)
class Difference:
    """A pruned cell's primary figure of one benchmark against the dense model's.

    Attributes:
        measurement: the figure of the pruned cell.
        higher_is_better: whether a higher figure is better.
        comparison: the paired test, Holm-adjusted over the benchmarks of the cell.
    """

    measurement: Measurement
    higher_is_better: bool
    comparison: Comparison

    def sentence(self) -> str:
        """Describe the change: "arc_easy acc fell from 61.2 to 58.9 % (...)"."""
        m = self.measurement
        scale = SCALES.get(m.metric, 1.0)
        shots = "" if m.shots is None else f" {m.shots}-shot"
        unit = " %" if scale == 100.0 else ""
        words = self.comparison.sentence(scale=scale, unit=unit, higher_is_better=self.higher_is_better)
        return f"{m.benchmark}{shots} {m.metric}: {words}"

    def row(self) -> dict[str, object]:
        """One flat row of `comparisons.csv`."""
        m, c = self.measurement, self.comparison
        names = ("model", "method", "ratio", "achieved_ratio", "seed", "benchmark", "metric", "shots")
        return {
            **{name: getattr(m, name) for name in names},
            "dense": c.dense,
            "pruned": c.pruned,
            "difference": c.difference,
            "low": c.interval[0],
            "high": c.interval[1],
            "p": c.p,
            "p_holm": c.p_adjusted,
            "significant": c.significant,
            "n": c.n,
            "test": c.test,
        }


def difference(
    benchmark: Benchmark, pruned: Measurement, before: pd.DataFrame | None, after: pd.DataFrame | None
) -> Difference | None:
    """Compare the sample records of two models; None without records or without a paired test.

    Args:
        benchmark: the benchmark.
        pruned: the figure of the pruned model.
        before: records of the dense model, one row per sample.
        after: records of the pruned model.
    """
    if before is None or after is None:
        return None
    comparison = benchmark.compare(before, after)
    return Difference(pruned, benchmark.higher_is_better, comparison) if comparison is not None else None


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Adjust the p values of one cell by Holm's method over its benchmarks."""
    comparisons = with_holm([d.comparison for d in differences])
    return [replace(d, comparison=c) for d, c in zip(differences, comparisons, strict=True)]


def write_comparisons(path: Path, differences: Iterable[Difference]) -> None:
    """Write `comparisons.csv` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(pd.DataFrame([d.row() for d in differences]).to_csv(index=False), encoding="utf-8")
