"""C7: depth pruning makes generation faster, width pruning hardly."""

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
"""Two speeds that differ by less are taken as equal: one figure a model has no spread to test with."""


@register
class Speed(Claim):
    """Tokens per second against the dense model's."""

    name: ClassVar[str] = "C7"
    statement: ClassVar[str] = "Depth pruning makes generation markedly faster, width pruning hardly."
    test: ClassVar[str] = (
        "In each model's largest cut above 15 % depth gains at least half, and width less than half, of what the "
        "removed share r would give if time went by weights, 1 / (1 - r); speeds are medians without a test, so within "
        f"{NOISE:.0%} of that limit nothing is decided."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Depth, and width."""
        return [_part(evidence, "depth markedly faster", "depth"), _part(evidence, "width hardly faster", "width")]


def _part(evidence: Evidence, name: str, strategy: str) -> ClaimPart:
    largest = [cuts[-1] for model in evidence.models if (cuts := evidence.cuts(strategy, model, ABOUT_TEN[1]))]
    found = [(cut, speed) for cut in largest if (speed := speedup(evidence, cut)) is not None]
    if not found:
        return ClaimPart(
            name, Verdict.NOT_MEASURED, f"{THROUGHPUT} of the dense model and of a {strategy} cut above 15 %"
        )
    verdicts, rows = [], []
    for cut, speed in found:
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
    """How many times as fast as the dense model, the mean over seeds; None where either was not measured."""
    dense = evidence.figure(cut.model, THROUGHPUT)
    own = [one.primary for one in evidence.by_seed(cut, THROUGHPUT).values()]
    if dense is None or not own or dense.value <= 0:
        return None
    return fmean(times_as_fast(one, dense.value) for one in own)
