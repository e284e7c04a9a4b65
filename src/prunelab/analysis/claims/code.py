"""C2: pruned models lose code generation."""

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
    """pass@1 at about 10 %, and failure modes at larger ratios."""

    name: ClassVar[str] = "C2"
    statement: ClassVar[str] = (
        "Removing 10 % of the weights significantly lowers HumanEval's pass@1 under both depth and width; at higher "
        "ratios, programs stop compiling and tokens repeat."
    )
    test: ClassVar[str] = (
        "pass@1 falls significantly (paired over problems, Holm) in every depth and every width cut of 5 to 15 %; in "
        "the largest cut above 15 %, the share of completions that do not compile and the share that repeat rise "
        "significantly above the dense model's (paired over problems, Holm) for at least one strategy and model, and "
        "fall significantly for none."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: pass@1 under each strategy, syntax errors, and repetition."""
        parts = []
        for strategy in ("depth", "width"):
            losses = evidence.losses(evidence.cuts(strategy, None, *ABOUT_TEN), [HUMANEVAL])
            needs = f"{HUMANEVAL}, above 0 in the dense model, on a {strategy} cut of about 10 %"
            parts.append(every(f"pass@1 under {strategy}", [(effect, fell(effect)) for effect in losses], needs))
        largest = [
            cuts[-1]
            for model in evidence.models
            for strategy in ("depth", "width")
            if (cuts := evidence.cuts(strategy, model, ABOUT_TEN[1]))
        ]
        needs = f"{HUMANEVAL}'s sample records on a depth or width cut above 15 %"
        for name, column in (("more syntax errors", "syntax_error"), ("more repetition", "repeats")):
            trials = [effect for cut in largest if (effect := _share(evidence, cut, column)) is not None]
            parts.append(any_significant(name, trials, needs))
        return parts


def _share(evidence: Evidence, cut: MeasuredCut, column: str) -> Effect | None:
    """The increase of a failure mode's share over the dense model."""
    both = [evidence.measured(of, HUMANEVAL) for of in (cut.model, cut)]
    tables = [None if measured is None else measured.samples for measured in both]
    shares = [_by_problem(table, column) for table in tables if table is not None]
    before, after = shares if len(shares) == 2 else (None, None)
    if before is None or after is None or set(before.index) != set(after.index):
        return None
    comparison = paired_bootstrap(before, after, mean, seed=0)
    keys = {
        **keys_of(cut),
        "benchmark": f"{HUMANEVAL} {column}",
        "dense": comparison.dense,
        "pruned": comparison.pruned,
    }
    return trial_of(keys, comparison)


def _by_problem(records: pd.DataFrame, column: str) -> pd.Series[float] | None:
    """The share of each problem's completions with a syntax error or repetition."""
    source = "verdict" if column == "syntax_error" else column
    if source not in records or "problem" not in records:
        return None
    failed = records[source] == "syntax_error" if column == "syntax_error" else records[source]
    return failed.astype(float).groupby(records["problem"]).mean()
