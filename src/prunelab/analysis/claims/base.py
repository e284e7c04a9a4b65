"""Base class of claims: parts with a verdict each, and the rule that combines the verdicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prunelab.analysis.claims.evidence import Evidence
    from prunelab.analysis.claims.trials import Row


class Verdict(StrEnum):
    """The verdict on a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict on one run.

    Attributes:
        claim: number of the claim, such as "C1".
        statement: the claim paraphrased in one sentence.
        verdict: the verdict on this run.
        finding: the result of each part, with its numbers.
        test: the decision rule, one sentence.
        evidence: the comparisons behind the verdict, as rows.
    """

    claim: str
    statement: str
    verdict: Verdict
    finding: str
    test: str
    evidence: Sequence[Row]


@dataclass(frozen=True)
class ClaimPart:
    """One part of a claim with its verdict.

    Attributes:
        name: short description.
        verdict: the part's verdict.
        finding: the part's numbers; for a part that was not measured, what it requires.
        evidence: the part's comparisons, as rows.
    """

    name: str
    verdict: Verdict
    finding: str
    evidence: Sequence[Row] = ()


class Claim(ABC):
    """One claim.

    Attributes:
        name: number of the claim, such as "C1".
        statement: the claim, one sentence.
        test: the decision rule, one sentence.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    test: ClassVar[str]

    @abstractmethod
    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """The parts of the claim with their verdicts."""

    def judge(self, evidence: Evidence) -> Judgement:
        """The verdict on the entire claim: see `combined`."""
        parts = self.parts(evidence)
        rows = [{"part": part.name, **row} for part in parts for row in part.evidence]
        verdict = combined(part.verdict for part in parts)
        return Judgement(self.name, self.statement, verdict, _finding(parts), self.test, rows)


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """Contradicted if any part is, supported if all measured parts are, else inconclusive."""
    measured = [verdict for verdict in verdicts if verdict is not Verdict.NOT_MEASURED]
    if not measured:
        return Verdict.NOT_MEASURED
    if Verdict.CONTRADICTED in measured:
        return Verdict.CONTRADICTED
    return Verdict.SUPPORTED if set(measured) == {Verdict.SUPPORTED} else Verdict.INCONCLUSIVE


def _finding(parts: Sequence[ClaimPart]) -> str:
    """The findings of the measured parts, and the requirements of the parts that were not measured."""
    measured = [part for part in parts if part.verdict is not Verdict.NOT_MEASURED]
    missing = [part for part in parts if part.verdict is Verdict.NOT_MEASURED]
    findings = "; ".join(f"{part.name}: {part.verdict} ({part.finding})" for part in measured)
    needs = "; ".join(f"{part.name} (requires {part.finding})" for part in missing)
    sentences = [findings, f"Not measured: {needs}" if needs else ""]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence)
