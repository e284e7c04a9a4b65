"""C1: common-sense benchmarks alone overstate a pruned model's quality."""

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
    """Knowledge, arithmetic, code and instructions compared with common sense, at 10 %."""

    name: ClassVar[str] = "C1"
    statement: ClassVar[str] = (
        "With 10 % of the weights removed, some benchmarks fall significantly while common-sense benchmarks hardly "
        "change, so a selective suite overstates a pruned model."
    )
    test: ClassVar[str] = (
        "At an achieved ratio of 5 to 15 %, at least one of MMLU, GSM8K, HumanEval and IFEval falls significantly "
        "(paired, Holm) in every depth and width cut, and the 95 % interval of each common-sense benchmark excludes a "
        f"loss of more than {HARDLY:.0%} of the dense model's margin over chance."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: other benchmarks fall, common sense hardly changes."""
        cuts = [cut for strategy in ("depth", "width") for cut in evidence.cuts(strategy, None, *ABOUT_TEN)]
        losses_by_cut = [losses for cut in cuts if (losses := evidence.losses([cut], OTHERS))]
        common = [(loss, is_small(loss)) for loss in evidence.losses(cuts, COMMONSENSE)]
        needs = "a common-sense benchmark, above chance, on a depth or width cut of about 10 %"
        return [_some_fall(losses_by_cut), every("common sense hardly changes", common, needs)]


def _some_fall(by_cut: Sequence[Sequence[Effect]]) -> ClaimPart:
    """One fallen benchmark per cut supports the claim; to contradict it, all intervals must lie inside the margin."""
    name = "other benchmarks fall"
    if not by_cut:
        return ClaimPart(
            name, Verdict.NOT_MEASURED, f"one of {', '.join(OTHERS)} on a depth or width cut of about 10 %"
        )
    verdicts = [_any(fell(loss) for loss in losses) for losses in by_cut]
    everything = [loss for losses in by_cut for loss in losses]
    held = verdicts.count(Verdict.SUPPORTED)
    finding = (
        f"in {held} of {len(by_cut)} cuts, at least one fell significantly; {most_significant(everything).words()}"
    )
    return ClaimPart(name, combined(verdicts), finding, rows(everything))


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    distinct = set(verdicts)
    if Verdict.SUPPORTED in distinct:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if distinct == {Verdict.CONTRADICTED} else Verdict.INCONCLUSIVE
