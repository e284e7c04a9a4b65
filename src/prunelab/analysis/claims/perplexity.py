"""C6: perplexity suffers more under depth than under width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import HIGH, CutPair, Evidence
from prunelab.analysis.claims.rules import any_significant, most_significant, rows
from prunelab.analysis.claims.trials import Effect, trial_of
from prunelab.io.lazy import pd
from prunelab.stats.paired_tests import paired_bootstrap, ratio

WIKITEXT2 = "wikitext2"


@register
class Perplexity(Claim):
    """The gap between the logarithms of two perplexities, on the same windows."""

    name: ClassVar[str] = "C6"
    statement: ClassVar[str] = (
        "Perplexity is worse under depth than under width, and the gap widens with the ratio, up to orders of "
        "magnitude."
    )
    test: ClassVar[str] = (
        "At matched ratios WikiText-2's perplexity is higher under depth than under width, significantly at least once "
        "(paired over windows, Holm) and never the other way; the gap of the logarithms is larger at the largest ratio "
        "than at the smallest (paired over windows, Holm); from 25 % on the 95 % interval of the factor lies above 10 "
        "for at least one model, and contradicts where it lies below for all."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Worse; widening; orders of magnitude."""
        # A duel is positive where depth is better: lower.
        worse = [one.reversed() for one in evidence.pairwise(evidence.pairs(), [WIKITEXT2])]
        widening, factors = [], []
        for model in evidence.models:
            gaps = [(p, gap) for p in evidence.pairs(model=model) if (gap := _gaps(evidence, p)) is not None]
            if len(gaps) > 1:
                widening += _widening(gaps[0], gaps[-1])
            factors += [_factor(*gaps[-1])] if gaps and gaps[-1][0].achieved_ratio >= HIGH else []
        return [
            any_significant("depth is worse", worse, f"{WIKITEXT2} on matched depth and width cuts"),
            any_significant("the gap widens", widening, f"{WIKITEXT2} on matched depth and width cuts at two ratios"),
            _orders(factors),
        ]


def _gaps(evidence: Evidence, pair: CutPair) -> pd.DataFrame | None:
    """Each window's loss under depth (`first`) and under width (`second`), and its tokens."""
    tables = []
    for cut in (pair.first, pair.second):
        one = evidence.measured(cut, WIKITEXT2)
        if one is None or one.samples is None or not {"loss_sum", "tokens"} <= set(one.samples):
            return None
        own = one.samples
        own = own[own["unit"] == "window"] if "unit" in own else own
        tables.append(own.set_index("sample")[["loss_sum", "tokens"]])
    first, second = tables
    if not first.index.sort_values().equals(second.index.sort_values()):
        return None
    return pd.DataFrame({"first": first["loss_sum"], "second": second["loss_sum"], "tokens": first["tokens"]})


def _widening(low: tuple[CutPair, pd.DataFrame], high: tuple[CutPair, pd.DataFrame]) -> list[Effect]:
    """The gap at the largest ratio minus the gap at the smallest."""
    if not low[1].index.sort_values().equals(high[1].index.sort_values()):
        return []
    tables = [pd.DataFrame({"gap": t["first"] - t["second"], "tokens": t["tokens"]}) for _, t in (low, high)]
    found = paired_bootstrap(tables[0], tables[1], ratio, seed=0)
    smallest, largest = (f"{pair.achieved_ratio:.0%}" for pair, _ in (low, high))
    keys: dict[str, str | float] = {"model": low[0].first.model, "benchmark": f"{WIKITEXT2} ln depth/width"}
    return [trial_of({**keys, f"at {smallest}": found.dense, f"at {largest}": found.pruned}, found)]


def _factor(pair: CutPair, gaps: pd.DataFrame) -> Effect:
    """The logarithm of depth's perplexity over width's."""
    found = paired_bootstrap(gaps[["second", "tokens"]], gaps[["first", "tokens"]], ratio, seed=0)
    keys: dict[str, str | float] = {"model": pair.first.model, "ratio": pair.achieved_ratio, "benchmark": WIKITEXT2}
    return trial_of({**keys, "depth/width": math.exp(min(found.difference, 700.0))}, found)


def _orders(factors: Sequence[Effect]) -> ClaimPart:
    name = "orders of magnitude"
    if not factors:
        return ClaimPart(name, Verdict.NOT_MEASURED, f"{WIKITEXT2} on matched depth and width cuts from 25 % on")
    shifted = [replace(one, low=one.low - math.log(10), high=one.high - math.log(10)) for one in factors]
    verdict = Verdict.INCONCLUSIVE
    if any(one.low > 0 for one in shifted):
        verdict = Verdict.SUPPORTED
    elif all(one.high < 0 for one in shifted):
        verdict = Verdict.CONTRADICTED
    largest = (
        max(factors, key=lambda one: one.effect) if verdict is not Verdict.INCONCLUSIVE else most_significant(factors)
    )
    return ClaimPart(name, verdict, largest.words(), rows(factors))
