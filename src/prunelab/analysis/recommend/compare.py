"""Whether two cuts differ in quality by more than chance."""

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


def quality_gap(evidence: Evidence, need: Need, one: Candidate, other: Candidate) -> Effect | None:
    """The first cut's quality minus the second's, by a z-test from each benchmark's paired test of the two on the same
    samples; benchmarks are independent. None where a benchmark has no such test.

    The dense figures in the shares are taken as known, and a share below chance is not raised to 0 here. A perplexity's
    share follows its own difference by the delta method. Cuts with several seeds are compared seed by seed; seeds share
    their samples, so that their errors are averaged as if they went together.
    """
    effect, variance = 0.0, 0.0
    for name in need.benchmarks:
        tests = evidence.between(one.cut, other.cut, name)
        dense = evidence.figure(one.cut.model, name)
        if tests is None or dense is None:
            return None
        slopes = [_slope(evidence, one.cut.model, name, dense.value, found) for found in tests]
        pairs = list(zip(slopes, tests, strict=True))
        effect += need.share(name) * fmean(slope * found.difference for slope, found in pairs)
        error = fmean(abs(slope) * trial_of({}, found).error for slope, found in pairs)
        variance += (need.share(name) * error) ** 2
    return normal_trial({}, effect, math.sqrt(variance))


def _slope(evidence: Evidence, model: str, benchmark: str, dense: float, found: Comparison) -> float:
    """What a test's difference, which is second minus first, is as a share of the dense model's, first minus second."""
    if higher_is_better(benchmark):
        return -1 / (dense - evidence.chance(model, benchmark))
    return dense / (found.dense * found.pruned)  # of a perplexity alone the share is not linear in the figure


def told_apart(evidence: Evidence, need: Need, choice: Candidate, other: Candidate) -> str:
    """In words, whether a runner-up's quality differs from the choice's."""
    gap = quality_gap(evidence, need, choice, other)
    if gap is None:
        return "whether its quality differs cannot be said: sample records or seeds are missing"
    p = "p < 0.001" if gap.p < 0.001 else f"p = {gap.p:.3f}"
    points = f"{abs(100 * gap.effect):.1f} points {'below' if gap.effect >= 0 else 'above'} the choice, {p}"
    if not gap.significant:
        return f"its quality does not differ significantly ({points})"
    return f"its quality is significantly {'lower' if gap.effect > 0 else 'higher'} ({points})"
