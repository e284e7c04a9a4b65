"""Whether two cuts differ in quality by more than chance."""

from __future__ import annotations

import math

from prunelab.claims.evidence import Evidence, compared, higher_is_better
from prunelab.claims.trials import Trial, normal_trial, trial_of
from prunelab.recommend.candidates import Candidate
from prunelab.recommend.need import Need


def quality_gap(evidence: Evidence, need: Need, one: Candidate, other: Candidate) -> Trial | None:
    """The first cut's quality minus the second's, by a z-test from each benchmark's paired test of the two on the same
    samples; benchmarks are independent. None where a benchmark has no such test.

    The dense figures in the shares are taken as known, and a share below chance is not raised to 0 here. A perplexity's
    share follows its own difference by the delta method.
    """
    effect, variance = 0.0, 0.0
    for name in need.benchmarks:
        found = compared(name, *(evidence.measured(of.cut, name) for of in (one, other)))
        dense = evidence.figure(one.cut.model, name)
        if found is None or dense is None:
            return None
        # `found` is second minus first, and both shares are linear in the figure, but for a perplexity.
        if higher_is_better(name):
            slope = -1 / (dense.value - evidence.chance(one.cut.model, name))
        else:
            slope = dense.value / (found.dense * found.pruned)
        effect += need.share(name) * slope * found.difference
        variance += (need.share(name) * slope * trial_of({}, found).error) ** 2
    return normal_trial({}, effect, math.sqrt(variance))


def told_apart(evidence: Evidence, need: Need, choice: Candidate, other: Candidate) -> str:
    """In words, whether a runner-up's quality differs from the choice's."""
    gap = quality_gap(evidence, need, choice, other)
    if gap is None:
        return "whether its quality differs cannot be said: sample records are missing"
    p = "p < 0.001" if gap.p < 0.001 else f"p = {gap.p:.3f}"
    points = f"{abs(100 * gap.effect):.1f} points {'below' if gap.effect >= 0 else 'above'} the choice, {p}"
    if not gap.significant:
        return f"its quality does not differ significantly ({points})"
    return f"its quality is significantly {'lower' if gap.effect > 0 else 'higher'} ({points})"
