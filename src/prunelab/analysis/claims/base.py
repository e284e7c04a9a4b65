"""What a claim is: parts with a verdict each, and the rule that makes one verdict of them."""

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
    """What a run says about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Judgement:
    """A claim, judged on one run.

    Attributes:
        claim: its number, such as "C1".
        statement: the claim in our own words, one sentence.
        verdict: what the run says.
        finding: what was found, with this run's numbers; which part decided.
        test: the rule, one sentence.
        evidence: the rows that the verdict was made from.
    """

    claim: str
    statement: str
    verdict: Verdict
    finding: str
    test: str
    evidence: Sequence[Row]


@dataclass(frozen=True)
class ClaimPart:
    """One part of a claim, judged.

    Attributes:
        name: a few words.
        verdict: of this part.
        finding: its numbers; for a part that was not measured, what it needs.
        evidence: its rows.
    """

    name: str
    verdict: Verdict
    finding: str
    evidence: Sequence[Row] = ()


class Claim(ABC):
    """One claim.

    Attributes:
        name: its number, such as "C1".
        statement: one sentence.
        test: the rule, one sentence.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    test: ClassVar[str]

    @abstractmethod
    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Every part of the claim, judged."""

    def judge(self, evidence: Evidence) -> Judgement:
        """The claim as a whole: see `combined`."""
        parts = self.parts(evidence)
        rows = [{"part": part.name, **row} for part in parts for row in part.evidence]
        verdict = combined(part.verdict for part in parts)
        return Judgement(self.name, self.statement, verdict, _finding(parts), self.test, rows)


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """Contradicted where a part is, supported where all measured parts are, else inconclusive."""
    measured = [verdict for verdict in verdicts if verdict is not Verdict.NOT_MEASURED]
    if not measured:
        return Verdict.NOT_MEASURED
    if Verdict.CONTRADICTED in measured:
        return Verdict.CONTRADICTED
    return Verdict.SUPPORTED if set(measured) == {Verdict.SUPPORTED} else Verdict.INCONCLUSIVE


def _finding(parts: Sequence[ClaimPart]) -> str:
    """What each part found, and what the parts that were not measured need."""
    measured = [part for part in parts if part.verdict is not Verdict.NOT_MEASURED]
    missing = [part for part in parts if part.verdict is Verdict.NOT_MEASURED]
    found = "; ".join(f"{part.name}: {part.verdict} ({part.finding})" for part in measured)
    needs = "; ".join(f"{part.name} needs {part.finding}" for part in missing)
    sentences = [found, f"Not measured: {needs}" if needs else ""]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence)
