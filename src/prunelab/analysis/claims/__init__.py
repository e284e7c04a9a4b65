"""The paper's claims, each tested on one run by a stated rule. To add a claim, add a file with one registered class.

The claims are those of "Rethinking the Value of Training-Free Structured Pruning of LLMs" (TMLR 2025). A verdict
applies to the run, not to the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.analysis.claims.base import Claim, ClaimPart, Judgement, Verdict
from prunelab.analysis.claims.evidence import Evidence
from prunelab.io.registry import Registry, discover

if TYPE_CHECKING:
    from prunelab.studies.run import Run

claims: Registry[Claim] = Registry("claim")


def register(claim: type[Claim]) -> type[Claim]:
    """Class decorator that registers a claim under its name."""
    claims.add(claim.name, claim())
    return claim


discover(__name__, __path__, without=("base", "evidence", "rules", "trials"))


def judge(run: Run) -> list[Judgement]:
    """Test every claim on one run, in the order of their numbers.

    Only the paper's methods are considered (`prunelab.analysis.claims.evidence.PAPER_METHODS`). A claim whose
    benchmarks, models or ratios are not in the run is `NOT_MEASURED`, and its finding lists what it requires.
    """
    evidence = Evidence(run)
    return [claim.judge(evidence) for claim in sorted(claims.values(), key=lambda claim: int(claim.name[1:]))]


__all__ = ["Claim", "ClaimPart", "Evidence", "Judgement", "Verdict", "claims", "judge", "register"]
