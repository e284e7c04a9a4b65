"""C3: pruned models no longer follow instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart
from prunelab.analysis.claims.evidence import COMMONSENSE, HIGH, Evidence, keys_of
from prunelab.analysis.claims.rules import HARDLY, any_significant, every, within
from prunelab.analysis.claims.trials import Effect, difference_trial, mean_trial

IFEVAL = "ifeval"


@register
class Instructions(Claim):
    """IFEval against common sense, and width against depth."""

    name: ClassVar[str] = "C3"
    statement: ClassVar[str] = (
        "IFEval falls more than the common benchmarks, and under width faster than under depth at low ratios, the two "
        "meeting at high ones."
    )
    test: ClassVar[str] = (
        "In each strategy's smallest cut the lost share of IFEval exceeds the mean lost share of the common-sense "
        "benchmarks (z-test, Holm); at matched ratios below 25 % width's IFEval is below depth's (paired over prompts, "
        f"Holm); at the largest from 25 % on the 95 % interval of their gap lies within {HARDLY:.0%} of the dense "
        "figure."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """More than the common benchmarks; width faster; meeting."""
        more = [
            one
            for model in evidence.models
            for strategy in ("depth", "width")
            if (one := _against_common(evidence, model, strategy)) is not None
        ]
        low = evidence.pairwise(evidence.pairs(high=HIGH), [IFEVAL])
        high = [pairs[-1] for model in evidence.models if (pairs := evidence.pairs(model=model, low=HIGH))]
        gaps = [
            one.scaled(1 / dense.value)
            for pair in high
            for one in evidence.pairwise([pair], [IFEVAL])
            if (dense := evidence.figure(pair.first.model, IFEVAL)) is not None and dense.value > 0
        ]
        return [
            any_significant("falls more than common sense", more, f"{IFEVAL} and a common-sense benchmark on one cut"),
            any_significant(
                "width falls faster at low ratios", low, f"{IFEVAL} on matched depth and width cuts below 25 %"
            ),
            every(
                "the two meet at high ratios",
                [(one, within(one, HARDLY)) for one in gaps],
                f"{IFEVAL} on matched depth and width cuts from 25 % on",
            ),
        ]


def _against_common(evidence: Evidence, model: str, strategy: str) -> Effect | None:
    """IFEval's lost share minus the mean of the common benchmarks', in the smallest cut."""
    for cut in evidence.cuts(strategy, model)[:1]:
        own, common = evidence.loss(cut, IFEVAL), evidence.losses([cut], COMMONSENSE)
        if own is not None and common:
            mean = mean_trial(own.keys, common)
            lost = {"lost": own.effect, "common sense lost": mean.effect}
            keys = {**keys_of(cut), "benchmark": IFEVAL, **lost}
            return difference_trial(keys, own, mean)
    return None
