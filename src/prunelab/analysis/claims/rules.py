"""From tests to a verdict: the few rules that all claims share.

The margin everywhere is a tenth of what the dense model has above chance: less is "hardly", more is a loss. A verdict
is never made from a bare difference: "nothing happened" needs an interval inside the margin, "something happened" a
p below 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.analysis.claims.base import ClaimPart, Verdict, combined
from prunelab.analysis.claims.trials import Effect, adjusted

HARDLY = 0.1
"""Share of the dense model's figure above chance that "hardly moves" allows to be lost."""


def any_significant(name: str, trials: Sequence[Effect], needs: str) -> ClaimPart:
    """Whether the tests lean the claim's way: supported where at least one does with significance (Holm) and none the
    other way, contradicted where one goes the other way, inconclusive where none is significant."""
    if not trials:
        return ClaimPart(name, Verdict.NOT_MEASURED, needs)
    tests = adjusted(trials)
    ahead, behind = ([t for t in tests if t.significant and sign * t.effect > 0] for sign in (1, -1))
    verdict = Verdict.CONTRADICTED if behind else Verdict.SUPPORTED if ahead else Verdict.INCONCLUSIVE
    counts = f"significantly so in {len(ahead)} of {len(tests)}, the other way in {len(behind)}"
    return ClaimPart(name, verdict, f"{counts}; {most_significant(behind or tests).words()}", rows(tests))


def every(name: str, judged: Sequence[tuple[Effect, Verdict]], needs: str) -> ClaimPart:
    """Tests of which each has a verdict: supported where all are, contradicted where one is."""
    if not judged:
        return ClaimPart(name, Verdict.NOT_MEASURED, needs)
    verdict = combined(one for _, one in judged)
    deciding = [trial for trial, one in judged if one is verdict]
    counts = f"{len(deciding)} of {len(judged)}"
    found = [{**trial.row(), "verdict": str(one)} for trial, one in judged]
    return ClaimPart(name, verdict, f"{counts}; {most_significant(deciding).words()}", found)


def fell(loss: Effect) -> Verdict:
    """Whether a figure fell, from its lost share: contradicted where it rose, or where not even the interval holds a
    loss beyond the margin."""
    if loss.significant:
        return Verdict.SUPPORTED if loss.effect > 0 else Verdict.CONTRADICTED
    return Verdict.CONTRADICTED if loss.high < HARDLY else Verdict.INCONCLUSIVE


def is_small(loss: Effect) -> Verdict:
    """Whether a figure hardly fell, from its lost share: its interval must lie below the margin, or above it."""
    if loss.high < HARDLY:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if loss.significant and loss.low > HARDLY else Verdict.INCONCLUSIVE


def within(trial: Effect, margin: float) -> Verdict:
    """Whether an effect of either sign is small: its interval must lie inside the margin, or outside."""
    if -margin < trial.low and trial.high < margin:
        return Verdict.SUPPORTED
    outside = trial.low > margin or trial.high < -margin
    return Verdict.CONTRADICTED if trial.significant and outside else Verdict.INCONCLUSIVE


def most_significant(trials: Sequence[Effect]) -> Effect:
    """The test that says most."""
    return min(trials, key=lambda one: (one.p, -abs(one.effect)))


def rows(trials: Sequence[Effect]) -> list[dict[str, str | float]]:
    """The tests as evidence."""
    return [dict(one.row()) for one in trials]
