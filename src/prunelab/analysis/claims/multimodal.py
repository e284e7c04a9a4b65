"""C9: pruning vision-language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import ABOUT_TEN, Evidence
from prunelab.analysis.claims.rules import any_significant, every
from prunelab.analysis.claims.trials import Effect, mean_trial

BENCHMARKS = ("pope", "textvqa", "mmmu")
COLLAPSE = 0.5
"""Lost share of the dense model's margin over chance that counts as a collapse."""


@register
class Multimodal(Claim):
    """POPE, TextVQA and MMMU of a vision-language model."""

    name: ClassVar[str] = "C9"
    statement: ClassVar[str] = (
        "In a vision-language model, depth retains more overall; width makes POPE collapse at larger ratios, and "
        "depth loses TextVQA."
    )
    test: ClassVar[str] = (
        "At matched ratios, the mean of depth minus width over POPE, TextVQA and MMMU (z-test, Holm) significantly "
        "favours depth at least once and never width; in width's largest cut above 15 %, POPE loses more than "
        f"{COLLAPSE:.0%} of its margin over chance (95 % interval); at the largest matched ratio, TextVQA is "
        "significantly lower under depth than under width (paired)."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: the mean, POPE, TextVQA."""
        overall = []
        for pair in evidence.pairs():
            pairwise = evidence.pairwise([pair], BENCHMARKS)
            if len(pairwise) == len(BENCHMARKS):
                ahead = sum(effect.effect for effect in pairwise) / len(pairwise)
                keys = {**pair.keys, "benchmark": "mean of three", "depth ahead by": ahead}
                overall.append(mean_trial(keys, pairwise))
        widest = [cuts[-1] for model in evidence.models if (cuts := evidence.cuts("width", model, ABOUT_TEN[1]))]
        pope = [(effect, _collapsed(effect)) for effect in evidence.losses(widest, ["pope"])]
        largest = [pairs[-1] for model in evidence.models if (pairs := evidence.pairs(model=model))]
        textvqa = [effect.reversed() for effect in evidence.pairwise(largest, ["textvqa"])]
        return [
            any_significant("depth better overall", overall, "pope, textvqa and mmmu on matched depth and width cuts"),
            every("POPE collapses under width", pope, "pope on a width cut above 15 %"),
            any_significant("depth loses TextVQA", textvqa, "textvqa on matched depth and width cuts"),
        ]


def _collapsed(loss: Effect) -> Verdict:
    if loss.low > COLLAPSE:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if loss.high < COLLAPSE else Verdict.INCONCLUSIVE
