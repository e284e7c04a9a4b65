"""The paper's claims, judged on this run."""

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
    """One finding a claim, the summary first."""
    if not study.grid.cuts:
        return None
    judged = judge(study.run)
    counts = [f"{sum(one.verdict is verdict for one in judged)} {verdict}" for verdict in Verdict]
    lead = (
        "What the paper says of structured pruning, each judged on this run by a stated test. It is the claim on this "
        f"run that is judged, not the paper. {', '.join(counts)}."
    )
    return Section("claims", "The paper's claims", lead, (*map(_finding, judged), _summary(judged)), "Claims")


def _summary(judged: Sequence[Judgement]) -> TableData:
    rows = tuple(Row((TableCell(one.claim), TableCell(one.statement), TableCell(one.verdict, mark=TONES[one.verdict])))
                 for one in judged)  # fmt: skip
    return TableData("claims", "The claims as a table", ("claim", "statement", "verdict"), rows, folded=True)


def _finding(one: Judgement) -> ClaimVerdict:
    evidence = _evidence(one.claim, one.evidence) if one.evidence else None
    return ClaimVerdict(one.claim, one.statement, one.verdict, TONES[one.verdict], one.finding, one.test, evidence)


def _evidence(claim: str, found: Sequence[Mapping[str, str | float]]) -> TableData:
    columns = tuple(dict.fromkeys(name for row in found for name in row))
    rows = tuple(Row(tuple(_cell(row.get(name)) for name in columns)) for row in found)
    return TableData(f"claim_{claim}", f"{claim}: what the verdict was made from", columns, rows, folded=True)


def _cell(value: str | float | None) -> TableCell:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return TableCell(number(value, 3), float(value))
    return TableCell("–" if value is None else str(value))
