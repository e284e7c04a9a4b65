"""What pruning changed, with statistics: each cell against its dense parent on the same samples."""

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
        measurement: the pruned cell's.
        higher_is_better: of the figure.
        comparison: the paired test, adjusted by Holm over the cell's benchmarks.
    """

    measurement: Measurement
    higher_is_better: bool
    comparison: Comparison

    def sentence(self) -> str:
        """The change in words: "arc_easy acc fell from 61.2 to 58.9 % (...)"."""
        m = self.measurement
        scale = SCALES.get(m.metric, 1.0)
        shots = "" if m.shots is None else f" {m.shots}-shot"
        unit = " %" if scale == 100.0 else ""
        words = self.comparison.sentence(scale=scale, unit=unit, higher_is_better=self.higher_is_better)
        return f"{m.benchmark}{shots} {m.metric}: {words}"

    def row(self) -> dict[str, object]:
        """As one flat row of `comparisons.csv`."""
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
    """The paired comparison of two models' sample records; None where the benchmark has none, or there are no records.

    Args:
        benchmark: what was measured.
        pruned: the pruned model's figure.
        before: the dense model's records, one row a sample.
        after: the pruned model's.
    """
    if before is None or after is None:
        return None
    comparison = benchmark.compare(before, after)
    return Difference(pruned, benchmark.higher_is_better, comparison) if comparison is not None else None


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """One cell's differences, their p values adjusted by Holm over its benchmarks."""
    comparisons = with_holm([d.comparison for d in differences])
    return [replace(d, comparison=c) for d, c in zip(differences, comparisons, strict=True)]


def write_comparisons(path: Path, differences: Iterable[Difference]) -> None:
    """Write `comparisons.csv`, whole or not at all."""
    with atomic_file(path) as aside:
        aside.write_text(pd.DataFrame([d.row() for d in differences]).to_csv(index=False), encoding="utf-8")
