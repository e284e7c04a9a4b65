"""Significance of the difference in quality between two cuts."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import Evidence, higher_is_better
from prunelab.analysis.claims.trials import Effect, normal_trial, trial_of

if TYPE_CHECKING:
    from prunelab.analysis.recommend.candidates import Candidate
    from prunelab.analysis.recommend.need import Need
    from prunelab.stats.paired_tests import Comparison


def quality_gap(evidence: Evidence, need: Need, choice: Candidate, alternative: Candidate) -> Effect | None:
    """The first cut's quality minus the second's: a z-test that combines the benchmarks' paired tests, taken as
    independent. None if a benchmark has no paired test of the two cuts.

    The dense results in the shares are treated as exact, and a share below chance is not clipped to 0. A perplexity's
    share is linearized by the delta method. Cuts with several seeds are compared seed by seed; seeds share their
    samples, so their errors are averaged as fully correlated.
    """
    effect, variance = 0.0, 0.0
    for name in need.benchmarks:
        tests = evidence.between(choice.cut, alternative.cut, name)
        dense = evidence.figure(choice.cut.model, name)
        if tests is None or dense is None:
            return None
        slopes = [_slope(evidence, choice.cut.model, name, dense.value, comparison) for comparison in tests]
        pairs = list(zip(slopes, tests, strict=True))
        effect += need.share(name) * fmean(slope * comparison.difference for slope, comparison in pairs)
        error = fmean(abs(slope) * trial_of({}, comparison).error for slope, comparison in pairs)
        variance += (need.share(name) * error) ** 2
    return normal_trial({}, effect, math.sqrt(variance))


def _slope(evidence: Evidence, model: str, benchmark: str, dense: float, comparison: Comparison) -> float:
    """The factor that converts a test's difference (second minus first) into a share of the dense model (first minus
    second)."""
    if higher_is_better(benchmark):
        return -1 / (dense - evidence.chance(model, benchmark))
    return dense / (comparison.dense * comparison.pruned)  # only a perplexity's share is not linear in the metric


def told_apart(evidence: Evidence, need: Need, choice: Candidate, alternative: Candidate) -> str:
    """A sentence on whether an alternative's quality differs from the choice's."""
    gap = quality_gap(evidence, need, choice, alternative)
    if gap is None:
        return "its quality cannot be compared: sample records or seeds are missing"
    p = "p < 0.001" if gap.p < 0.001 else f"p = {gap.p:.3f}"
    points = f"{abs(100 * gap.effect):.1f} points {'below' if gap.effect >= 0 else 'above'} the choice, {p}"
    if not gap.significant:
        return f"its quality does not differ significantly ({points})"
    return f"its quality is significantly {'lower' if gap.effect > 0 else 'higher'} ({points})"
