"""C4: depth keeps more accuracy than width."""

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
    """Depth against width on the same questions."""

    name: ClassVar[str] = "C4"
    statement: ClassVar[str] = (
        "Depth keeps more accuracy than width overall: on ARC-Easy, ARC-Challenge and BoolQ consistently, on MMLU and "
        "GSM8K with mixed results."
    )
    test: ClassVar[str] = (
        "At matched ratios the mean of depth minus width over the accuracy benchmarks (z-test, Holm), and each of "
        "ARC-Easy, ARC-Challenge and BoolQ (exact McNemar on the same questions, Holm), favours depth significantly at "
        "least once and width never; MMLU and GSM8K favour significantly now the one, now the other."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Overall, each of the three, and the two."""
        pairs = evidence.pairs()
        overall = []
        for pair in pairs:
            pairwise = evidence.pairwise([pair], ACCURACY)
            if len(pairwise) > 1:
                ahead = sum(one.effect for one in pairwise) / len(pairwise)
                keys = {**pair.keys, "benchmark": f"mean of {len(pairwise)}", "depth ahead by": ahead}
                overall.append(mean_trial(keys, pairwise))
        found = [any_significant("overall", overall, "two accuracy benchmarks on matched depth and width cuts")]
        for name in CONSISTENT:
            needs = f"{name} on matched depth and width cuts"
            found.append(any_significant(f"depth ahead on {name}", evidence.pairwise(pairs, [name]), needs))
        return [*found, _mixed(evidence.pairwise(pairs, MIXED))]


def _mixed(pairwise: Sequence[Effect]) -> ClaimPart:
    """Supported by significance both ways; contradicted where every one of several goes the same way."""
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
