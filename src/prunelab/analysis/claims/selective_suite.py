"""C1: a suite of common-sense benchmarks alone overstates a pruned model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict, combined
from prunelab.analysis.claims.evidence import ABOUT_TEN, COMMONSENSE, Evidence
from prunelab.analysis.claims.rules import HARDLY, every, fell, is_small, most_significant, rows

if TYPE_CHECKING:
    from prunelab.analysis.claims.trials import Effect

OTHERS = ("mmlu", "gsm8k", "humaneval", "ifeval")


@register
class SelectiveSuite(Claim):
    """Knowledge, arithmetic, code and instructions against common sense, at 10 %."""

    name: ClassVar[str] = "C1"
    statement: ClassVar[str] = (
        "With a tenth of the weights removed, some benchmarks fall significantly while common-sense ones hardly move, "
        "so that a selective suite overstates a pruned model."
    )
    test: ClassVar[str] = (
        "At an achieved ratio of 5 to 15 %, in every depth and width cut at least one of MMLU, GSM8K, HumanEval and "
        "IFEval falls significantly (paired, Holm), and of each common-sense benchmark the 95 % interval excludes a "
        f"loss of more than {HARDLY:.0%} of what the dense model has above chance."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """That the others fall, and that common sense stays."""
        cuts = [cut for strategy in ("depth", "width") for cut in evidence.cuts(strategy, None, *ABOUT_TEN)]
        others = [found for cut in cuts if (found := evidence.losses([cut], OTHERS))]
        common = [(one, is_small(one)) for one in evidence.losses(cuts, COMMONSENSE)]
        needs = "a common-sense benchmark, above chance, on a depth or width cut of about 10 %"
        return [_some_fall(others), every("common sense hardly moves", common, needs)]


def _some_fall(by_cut: Sequence[Sequence[Effect]]) -> ClaimPart:
    """In each cut one benchmark that fell is enough; that none did takes all intervals to be inside the margin."""
    name = "other benchmarks fall"
    if not by_cut:
        return ClaimPart(
            name, Verdict.NOT_MEASURED, f"one of {', '.join(OTHERS)} on a depth or width cut of about 10 %"
        )
    verdicts = [_any(fell(one) for one in losses) for losses in by_cut]
    everything = [one for losses in by_cut for one in losses]
    held = verdicts.count(Verdict.SUPPORTED)
    found = f"in {held} of {len(by_cut)} cuts one fell significantly; {most_significant(everything).words()}"
    return ClaimPart(name, combined(verdicts), found, rows(everything))


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    found = set(verdicts)
    if Verdict.SUPPORTED in found:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if found == {Verdict.CONTRADICTED} else Verdict.INCONCLUSIVE
