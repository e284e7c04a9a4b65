"""C6: depth pruning raises perplexity more than width pruning."""

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
    """The difference of log perplexities between depth and width, on the same windows."""

    name: ClassVar[str] = "C6"
    statement: ClassVar[str] = (
        "Perplexity is worse under depth than under width, and the gap widens with the ratio, up to orders of "
        "magnitude."
    )
    test: ClassVar[str] = (
        "At matched ratios, WikiText-2's perplexity is higher under depth than under width, significantly at least "
        "once (paired over windows, Holm) and never significantly lower; the gap of the logarithms is larger at the "
        "largest ratio than at the smallest (paired over windows, Holm); from 25 %, the 95 % interval of the factor "
        "lies above 10 for at least one model; contradicted if it lies below 10 for all models."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: higher perplexity, widening gap, orders of magnitude."""
        # `pairwise` is positive if depth is better, that is, lower.
        worse = [effect.reversed() for effect in evidence.pairwise(evidence.pairs(), [WIKITEXT2])]
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
    """Each window's loss under depth (`first`) and width (`second`), and its number of tokens."""
    tables = []
    for cut in (pair.first, pair.second):
        measured = evidence.measured(cut, WIKITEXT2)
        if measured is None or measured.samples is None or not {"loss_sum", "tokens"} <= set(measured.samples):
            return None
        records = measured.samples
        records = records[records["unit"] == "window"] if "unit" in records else records
        tables.append(records.set_index("sample")[["loss_sum", "tokens"]])
    first, second = tables
    if not first.index.sort_values().equals(second.index.sort_values()):
        return None
    return pd.DataFrame({"first": first["loss_sum"], "second": second["loss_sum"], "tokens": first["tokens"]})


def _widening(low: tuple[CutPair, pd.DataFrame], high: tuple[CutPair, pd.DataFrame]) -> list[Effect]:
    """The gap at the largest ratio minus the gap at the smallest."""
    if not low[1].index.sort_values().equals(high[1].index.sort_values()):
        return []
    tables = [pd.DataFrame({"gap": t["first"] - t["second"], "tokens": t["tokens"]}) for _, t in (low, high)]
    comparison = paired_bootstrap(tables[0], tables[1], ratio, seed=0)
    smallest, largest = (f"{pair.achieved_ratio:.0%}" for pair, _ in (low, high))
    keys: dict[str, str | float] = {"model": low[0].first.model, "benchmark": f"{WIKITEXT2} ln depth/width"}
    return [trial_of({**keys, f"at {smallest}": comparison.dense, f"at {largest}": comparison.pruned}, comparison)]


def _factor(pair: CutPair, gaps: pd.DataFrame) -> Effect:
    """The logarithm of the ratio of depth's perplexity to width's."""
    comparison = paired_bootstrap(gaps[["second", "tokens"]], gaps[["first", "tokens"]], ratio, seed=0)
    keys: dict[str, str | float] = {"model": pair.first.model, "ratio": pair.achieved_ratio, "benchmark": WIKITEXT2}
    return trial_of({**keys, "depth/width": math.exp(min(comparison.difference, 700.0))}, comparison)


def _orders(factors: Sequence[Effect]) -> ClaimPart:
    name = "orders of magnitude"
    if not factors:
        return ClaimPart(name, Verdict.NOT_MEASURED, f"{WIKITEXT2} on matched depth and width cuts of at least 25 %")
    shifted = [replace(effect, low=effect.low - math.log(10), high=effect.high - math.log(10)) for effect in factors]
    verdict = Verdict.INCONCLUSIVE
    if any(effect.low > 0 for effect in shifted):
        verdict = Verdict.SUPPORTED
    elif all(effect.high < 0 for effect in shifted):
        verdict = Verdict.CONTRADICTED
    largest = (
        max(factors, key=lambda effect: effect.effect)
        if verdict is not Verdict.INCONCLUSIVE
        else most_significant(factors)
    )
    return ClaimPart(name, verdict, largest.words(), rows(factors))
