"""C2: pruned models no longer write programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart
from prunelab.analysis.claims.evidence import ABOUT_TEN, Evidence, MeasuredCut, keys_of
from prunelab.analysis.claims.rules import any_significant, every, fell
from prunelab.analysis.claims.trials import Effect, trial_of
from prunelab.stats.paired_tests import mean, paired_bootstrap

if TYPE_CHECKING:
    import pandas as pd

HUMANEVAL = "humaneval"


@register
class Code(Claim):
    """pass@1 at 10 %, and how programs fail above."""

    name: ClassVar[str] = "C2"
    statement: ClassVar[str] = (
        "HumanEval's pass@1 falls significantly with a tenth of the weights removed, under depth and width alike, and "
        "at higher ratios syntax breaks and tokens repeat."
    )
    test: ClassVar[str] = (
        "pass@1 falls significantly (paired over problems, Holm) in every depth and every width cut of 5 to 15 %; in "
        "the largest cut above 15 % the share of completions that do not compile, and of those that end in a loop, "
        "rises significantly over the dense model's (paired over problems, Holm) in at least one strategy and model, "
        "and falls in none."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """pass@1 of either strategy, then syntax and loops."""
        found = []
        for strategy in ("depth", "width"):
            losses = evidence.losses(evidence.cuts(strategy, None, *ABOUT_TEN), [HUMANEVAL])
            needs = f"{HUMANEVAL}, above 0 in the dense model, on a {strategy} cut of about 10 %"
            found.append(every(f"pass@1 under {strategy}", [(one, fell(one)) for one in losses], needs))
        largest = [
            cuts[-1]
            for model in evidence.models
            for strategy in ("depth", "width")
            if (cuts := evidence.cuts(strategy, model, ABOUT_TEN[1]))
        ]
        needs = f"{HUMANEVAL}'s sample records on a depth or width cut above 15 %"
        for name, column in (("syntax breaks", "syntax_error"), ("tokens repeat", "repeats")):
            trials = [one for cut in largest if (one := _share(evidence, cut, column)) is not None]
            found.append(any_significant(name, trials, needs))
        return found


def _share(evidence: Evidence, cut: MeasuredCut, column: str) -> Effect | None:
    """How much more often completions fail so under the cut than in the dense model."""
    both = [evidence.measured(of, HUMANEVAL) for of in (cut.model, cut)]
    tables = [None if one is None else one.samples for one in both]
    shares = [_by_problem(table, column) for table in tables if table is not None]
    before, after = shares if len(shares) == 2 else (None, None)
    if before is None or after is None or set(before.index) != set(after.index):
        return None
    found = paired_bootstrap(before, after, mean, seed=0)
    keys = {**keys_of(cut), "benchmark": f"{HUMANEVAL} {column}", "dense": found.dense, "pruned": found.pruned}
    return trial_of(keys, found)


def _by_problem(records: pd.DataFrame, column: str) -> pd.Series[float] | None:
    """Each problem's share of completions that do not compile, or that repeat."""
    source = "verdict" if column == "syntax_error" else column
    if source not in records or "problem" not in records:
        return None
    failed = records[source] == "syntax_error" if column == "syntax_error" else records[source]
    return failed.astype(float).groupby(records["problem"]).mean()
