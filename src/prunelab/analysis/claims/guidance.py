"""C10: the paper's guidance on strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.rules import any_significant, every, most_significant, rows
from prunelab.analysis.claims.speed import NOISE, THROUGHPUT, speedup
from prunelab.analysis.claims.trials import Effect, adjusted

if TYPE_CHECKING:
    from prunelab.analysis.claims.evidence import CutPair, Evidence

REASONING = ("gsm8k", "mmlu")
MODERATE = 0.225
"""Achieved ratios below this value count as up to 20 %."""
WIKITEXT2 = "wikitext2"


@register
class Guidance(Claim):
    """Depth, width and hybrid, each for its recommended use."""

    name: ClassVar[str] = "C10"
    statement: ClassVar[str] = (
        "Depth suits reasoning at 10 to 20 % and speed, width preserves language modelling, and a hybrid is in between."
    )
    test: ClassVar[str] = (
        "At matched ratios up to 22.5 %, depth is significantly better than width on GSM8K or MMLU and never worse "
        f"(McNemar, Holm), and generates faster by more than {NOISE:.0%}; width's WikiText-2 perplexity is "
        "significantly lower than depth's at least once and never higher (paired over windows, Holm); hybrid's is "
        "significantly below the worse and above the better of the two at every matched ratio; contradicted if it is "
        "significantly outside both."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: reasoning, speed, language modelling, hybrid."""
        pairs = evidence.pairs(high=MODERATE)
        modelling = [effect.reversed() for effect in evidence.pairwise(evidence.pairs(), [WIKITEXT2])]
        matched = "matched depth and width cuts"
        return [
            any_significant(
                "depth for reasoning", evidence.pairwise(pairs, REASONING), f"gsm8k or mmlu on {matched} up to 20 %"
            ),
            _faster(evidence, pairs, f"{THROUGHPUT} on {matched} up to 20 %"),
            any_significant("width for language modelling", modelling, f"{WIKITEXT2} on {matched}"),
            _between(evidence),
        ]


def _faster(evidence: Evidence, pairs: Sequence[CutPair], needs: str) -> ClaimPart:
    """Depth's speed relative to width's; inconclusive within the noise, since medians have no test."""
    measured, words = [], []
    for pair in pairs:
        depth, width = (speedup(evidence, cut) for cut in (pair.first, pair.second))
        if depth is not None and width is not None:
            figures = {"depth": depth, "width": width}
            measured.append(({**pair.keys, "benchmark": THROUGHPUT, **figures}, depth / width))
            words.append(f"{pair.first.model} {pair.achieved_ratio:.1%}: depth {depth:.2f}x, width {width:.2f}x")
    if not measured:
        return ClaimPart("depth for speed", Verdict.NOT_MEASURED, needs)
    verdict = Verdict.INCONCLUSIVE
    if any(factor < 1 - NOISE for _, factor in measured):
        verdict = Verdict.CONTRADICTED
    elif all(factor > 1 + NOISE for _, factor in measured):
        verdict = Verdict.SUPPORTED
    return ClaimPart("depth for speed", verdict, "; ".join(words), [row for row, _ in measured])


def _between(evidence: Evidence) -> ClaimPart:
    """Hybrid's perplexity compared with depth's and width's; positive effects favour hybrid."""
    name = "hybrid in between"
    trios = []
    for with_depth in evidence.pairs("hybrid", "depth"):
        for with_width in evidence.pairs("hybrid", "width", with_depth.first.model):
            if with_width.first == with_depth.first:
                pairwise = evidence.pairwise([with_depth, with_width], [WIKITEXT2])
                trios += [pairwise] if len(pairwise) == 2 else []
    if not trios:
        return ClaimPart(name, Verdict.NOT_MEASURED, f"{WIKITEXT2} on matched hybrid, depth and width cuts")
    tests = adjusted([effect for trio in trios for effect in trio])
    verdicts = [_of_trio(tests[2 * i], tests[2 * i + 1]) for i in range(len(trios))]
    combined_part = every(name, list(zip(tests[::2], verdicts, strict=True)), "")
    return ClaimPart(name, combined_part.verdict, most_significant(tests).words(), rows(tests))


def _of_trio(against_depth: Effect, against_width: Effect) -> Verdict:
    if not (against_depth.significant and against_width.significant):
        return Verdict.INCONCLUSIVE
    same_side = (against_depth.effect > 0) == (against_width.effect > 0)
    return Verdict.CONTRADICTED if same_side else Verdict.SUPPORTED
