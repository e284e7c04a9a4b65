"""C9: what becomes of a model that sees."""

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
"""Share of what the dense model has above chance whose loss is a collapse."""


@register
class Multimodal(Claim):
    """POPE, TextVQA and MMMU behind a vision encoder."""

    name: ClassVar[str] = "C9"
    statement: ClassVar[str] = (
        "Of a multimodal model depth keeps more overall; width makes POPE collapse as the ratio grows, and depth loses "
        "TextVQA."
    )
    test: ClassVar[str] = (
        "At matched ratios the mean of depth minus width over POPE, TextVQA and MMMU (z-test, Holm) favours depth "
        f"significantly at least once and width never; in width's largest cut above 15 % POPE loses more than "
        f"{COLLAPSE:.0%} of what is above chance (95 % interval); at the largest matched ratio TextVQA is "
        "significantly lower under depth than under width (paired)."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Overall, POPE, TextVQA."""
        overall = []
        for pair in evidence.pairs():
            pairwise = evidence.pairwise([pair], BENCHMARKS)
            if len(pairwise) == len(BENCHMARKS):
                ahead = sum(one.effect for one in pairwise) / len(pairwise)
                keys = {**pair.keys, "benchmark": "mean of three", "depth ahead by": ahead}
                overall.append(mean_trial(keys, pairwise))
        widest = [cuts[-1] for model in evidence.models if (cuts := evidence.cuts("width", model, ABOUT_TEN[1]))]
        pope = [(one, _collapsed(one)) for one in evidence.losses(widest, ["pope"])]
        largest = [pairs[-1] for model in evidence.models if (pairs := evidence.pairs(model=model))]
        textvqa = [one.reversed() for one in evidence.pairwise(largest, ["textvqa"])]
        return [
            any_significant("depth better overall", overall, "pope, textvqa and mmmu on matched depth and width cuts"),
            every("POPE collapses under width", pope, "pope on a width cut above 15 %"),
            any_significant("depth loses TextVQA", textvqa, "textvqa on matched depth and width cuts"),
        ]


def _collapsed(loss: Effect) -> Verdict:
    if loss.low > COLLAPSE:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if loss.high < COLLAPSE else Verdict.INCONCLUSIVE
