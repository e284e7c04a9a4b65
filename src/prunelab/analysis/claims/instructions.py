"""C3: pruned models lose instruction following."""

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
    """IFEval compared with common-sense benchmarks, and width with depth."""

    name: ClassVar[str] = "C3"
    statement: ClassVar[str] = (
        "IFEval falls more than common-sense benchmarks; at low ratios it falls faster under width than under depth, "
        "and the two converge at high ratios."
    )
    test: ClassVar[str] = (
        "In each strategy's smallest cut, the lost share of IFEval exceeds the mean lost share of the common-sense "
        "benchmarks (z-test, Holm); at matched ratios below 25 %, width's IFEval is below depth's (paired over "
        f"prompts, Holm); at the largest ratio from 25 %, the 95 % interval of their gap lies within {HARDLY:.0%} of "
        "the dense result."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: larger loss than common sense, faster loss under width, convergence."""
        more = [
            effect
            for model in evidence.models
            for strategy in ("depth", "width")
            if (effect := _against_common(evidence, model, strategy)) is not None
        ]
        low = evidence.pairwise(evidence.pairs(high=HIGH), [IFEVAL])
        high = [pairs[-1] for model in evidence.models if (pairs := evidence.pairs(model=model, low=HIGH))]
        gaps = [
            effect.scaled(1 / dense.value)
            for pair in high
            for effect in evidence.pairwise([pair], [IFEVAL])
            if (dense := evidence.figure(pair.first.model, IFEVAL)) is not None and dense.value > 0
        ]
        return [
            any_significant("falls more than common sense", more, f"{IFEVAL} and a common-sense benchmark on one cut"),
            any_significant(
                "width falls faster at low ratios", low, f"{IFEVAL} on matched depth and width cuts below 25 %"
            ),
            every(
                "the two converge at high ratios",
                [(effect, within(effect, HARDLY)) for effect in gaps],
                f"{IFEVAL} on matched depth and width cuts of at least 25 %",
            ),
        ]


def _against_common(evidence: Evidence, model: str, strategy: str) -> Effect | None:
    """IFEval's lost share minus the mean of the common-sense benchmarks', in the smallest cut."""
    for cut in evidence.cuts(strategy, model)[:1]:
        ifeval_loss, common = evidence.loss(cut, IFEVAL), evidence.losses([cut], COMMONSENSE)
        if ifeval_loss is not None and common:
            mean = mean_trial(ifeval_loss.keys, common)
            lost = {"lost": ifeval_loss.effect, "common sense lost": mean.effect}
            keys = {**keys_of(cut), "benchmark": IFEVAL, **lost}
            return difference_trial(keys, ifeval_loss, mean)
    return None
