"""C4: depth pruning retains more accuracy than width pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import ACCURACY, Evidence
from prunelab.analysis.claims.rules import any_significant, most_significant, rows
from prunelab.analysis.claims.trials import Effect, adjusted, mean_trial

CONSISTENT = ("arc_easy", "arc_challenge", "boolq")
MIXED = ("mmlu", "gsm8k")


@register
class Accuracy(Claim):
    """Depth compared with width on the same questions."""

    name: ClassVar[str] = "C4"
    statement: ClassVar[str] = (
        "Depth pruning retains more accuracy than width pruning overall: consistently on ARC-Easy, ARC-Challenge and "
        "BoolQ, with mixed results on MMLU and GSM8K."
    )
    test: ClassVar[str] = (
        "At matched ratios, the mean of depth minus width over the accuracy benchmarks (z-test, Holm), and each of "
        "ARC-Easy, ARC-Challenge and BoolQ (exact McNemar test on the same questions, Holm), significantly favours "
        "depth at least once and never width; MMLU and GSM8K significantly favour depth in some cells and width in "
        "others."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: the mean, each of the three consistent benchmarks, and the two mixed ones."""
        pairs = evidence.pairs()
        overall = []
        for pair in pairs:
            pairwise = evidence.pairwise([pair], ACCURACY)
            if len(pairwise) > 1:
                ahead = sum(effect.effect for effect in pairwise) / len(pairwise)
                keys = {**pair.keys, "benchmark": f"mean of {len(pairwise)}", "depth ahead by": ahead}
                overall.append(mean_trial(keys, pairwise))
        parts = [any_significant("overall", overall, "two accuracy benchmarks on matched depth and width cuts")]
        for name in CONSISTENT:
            needs = f"{name} on matched depth and width cuts"
            parts.append(any_significant(f"depth ahead on {name}", evidence.pairwise(pairs, [name]), needs))
        return [*parts, _mixed(evidence.pairwise(pairs, MIXED))]


def _mixed(pairwise: Sequence[Effect]) -> ClaimPart:
    """Supported if both directions are significant; contradicted if all of several tests favour the same strategy."""
    name = "MMLU and GSM8K mixed"
    if not pairwise:
        return ClaimPart(name, Verdict.NOT_MEASURED, "mmlu or gsm8k on matched depth and width cuts")
    tests = adjusted(pairwise)
    depth, width = (sum(t.significant and sign * t.effect > 0 for t in tests) for sign in (1, -1))
    verdict = Verdict.INCONCLUSIVE
    if depth and width:
        verdict = Verdict.SUPPORTED
    elif len(tests) > 1 and len(tests) in (depth, width):
        verdict = Verdict.CONTRADICTED
    counts = f"of {len(tests)} depth is significantly ahead in {depth}, width in {width}"
    return ClaimPart(name, verdict, f"{counts}; {most_significant(tests).words()}", rows(tests))
