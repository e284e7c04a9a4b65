"""The paper's claims, tested on this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prunelab.analysis.claims import Judgement, Verdict, judge
from prunelab.reports.columns import number
from prunelab.reports.elements import ClaimVerdict, Row, Section, TableCell, TableData

if TYPE_CHECKING:
    from prunelab.reports.grid import Study

TONES = {
    Verdict.SUPPORTED: "good",
    Verdict.CONTRADICTED: "bad",
    Verdict.INCONCLUSIVE: "open",
    Verdict.NOT_MEASURED: "none",
}


def section(study: Study) -> Section | None:
    """One verdict per claim, then the summary table."""
    if not study.grid.cuts:
        return None
    judged = judge(study.run)
    counts = [f"{sum(claim.verdict is verdict for claim in judged)} {verdict}" for verdict in Verdict]
    lead = (
        "The paper's claims about structured pruning, each tested on this run by a stated rule. A verdict applies to "
        f"this run, not to the paper. {', '.join(counts)}."
    )
    return Section("claims", "The paper's claims", lead, (*map(_finding, judged), _summary(judged)), "Claims")


def _summary(judged: Sequence[Judgement]) -> TableData:
    rows = tuple(
        Row((TableCell(c.claim), TableCell(c.statement), TableCell(c.verdict, mark=TONES[c.verdict]))) for c in judged
    )
    return TableData("claims", "Summary of the claims", ("claim", "statement", "verdict"), rows, folded=True)


def _finding(claim: Judgement) -> ClaimVerdict:
    evidence = _evidence(claim.claim, claim.evidence) if claim.evidence else None
    return ClaimVerdict(
        claim.claim, claim.statement, claim.verdict, TONES[claim.verdict], claim.finding, claim.test, evidence
    )


def _evidence(claim: str, evidence_rows: Sequence[Mapping[str, str | float]]) -> TableData:
    columns = tuple(dict.fromkeys(name for row in evidence_rows for name in row))
    rows = tuple(Row(tuple(_cell(row.get(name)) for name in columns)) for row in evidence_rows)
    return TableData(f"claim_{claim}", f"{claim}: evidence for the verdict", columns, rows, folded=True)


def _cell(value: str | float | None) -> TableCell:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return TableCell(number(value, 3), float(value))
    return TableCell("–" if value is None else str(value))
