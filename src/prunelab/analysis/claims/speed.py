"""C7: depth pruning speeds up generation, width pruning hardly does."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict, combined
from prunelab.analysis.claims.evidence import ABOUT_TEN, Evidence, MeasuredCut, keys_of
from prunelab.evaluation.records import times_as_fast

THROUGHPUT = "throughput"
NOISE = 0.05
"""Relative difference of speeds below which they count as equal, since one measurement has no spread to test."""


@register
class Speed(Claim):
    """Tokens per second relative to the dense model."""

    name: ClassVar[str] = "C7"
    statement: ClassVar[str] = "Depth pruning makes generation markedly faster; width pruning hardly does."
    test: ClassVar[str] = (
        "In each model's largest cut above 15 %, depth gains at least half, and width less than half, of the speedup "
        "1 / (1 - r) that removing the share r would give if time were proportional to weights; speeds are medians "
        f"without a test, so results within {NOISE:.0%} of that limit are inconclusive."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: depth and width."""
        return [_part(evidence, "depth markedly faster", "depth"), _part(evidence, "width hardly faster", "width")]


def _part(evidence: Evidence, name: str, strategy: str) -> ClaimPart:
    largest = [cuts[-1] for model in evidence.models if (cuts := evidence.cuts(strategy, model, ABOUT_TEN[1]))]
    speeds = [(cut, speed) for cut in largest if (speed := speedup(evidence, cut)) is not None]
    if not speeds:
        return ClaimPart(
            name, Verdict.NOT_MEASURED, f"{THROUGHPUT} of the dense model and of a {strategy} cut above 15 %"
        )
    verdicts, rows = [], []
    for cut, speed in speeds:
        limit = 1 + (1 / (1 - cut.achieved_ratio) - 1) / 2
        verdict = Verdict.INCONCLUSIVE
        if abs(speed - limit) > NOISE * limit:
            verdict = Verdict.SUPPORTED if (speed > limit) == (strategy == "depth") else Verdict.CONTRADICTED
        verdicts.append(verdict)
        rows.append({**keys_of(cut), "benchmark": THROUGHPUT, "speed": speed, "limit": limit, "verdict": str(verdict)})
    verdict = combined(verdicts)
    words = "; ".join(f"{r['model']} {r['ratio']:.1%} {r['speed']:.2f}x, limit {r['limit']:.2f}x" for r in rows)
    return ClaimPart(name, verdict, words, rows)


def speedup(evidence: Evidence, cut: MeasuredCut) -> float | None:
    """The cut's speed relative to the dense model, averaged over seeds; None if either was not measured."""
    dense = evidence.figure(cut.model, THROUGHPUT)
    primary = [measured.primary for measured in evidence.by_seed(cut, THROUGHPUT).values()]
    if dense is None or not primary or dense.value <= 0:
        return None
    return fmean(times_as_fast(measured, dense.value) for measured in primary)
