"""The rules, shared by all claims, that turn tests into a verdict.

The margin is a tenth of the dense model's margin over chance: a smaller change is "hardly" one, a larger one is a
loss. A difference alone never decides: "no change" requires an interval inside the margin, "a change" requires
p < 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.analysis.claims.base import ClaimPart, Verdict, combined
from prunelab.analysis.claims.trials import Effect, adjusted

HARDLY = 0.1
"""Lost share of the dense model's margin over chance that still counts as "hardly changes"."""


def any_significant(name: str, trials: Sequence[Effect], needs: str) -> ClaimPart:
    """Supported if at least one test is significant in the claim's direction (Holm) and none in the opposite one,
    contradicted if one is significant in the opposite direction, inconclusive if none is significant."""
    if not trials:
        return ClaimPart(name, Verdict.NOT_MEASURED, needs)
    tests = adjusted(trials)
    ahead, opposed = ([t for t in tests if t.significant and sign * t.effect > 0] for sign in (1, -1))
    verdict = Verdict.CONTRADICTED if opposed else Verdict.SUPPORTED if ahead else Verdict.INCONCLUSIVE
    counts = f"significant in {len(ahead)} of {len(tests)}, in the opposite direction in {len(opposed)}"
    return ClaimPart(name, verdict, f"{counts}; {most_significant(opposed or tests).words()}", rows(tests))


def every(name: str, judged: Sequence[tuple[Effect, Verdict]], needs: str) -> ClaimPart:
    """Combine tests that have a verdict each: supported if all are, contradicted if any is."""
    if not judged:
        return ClaimPart(name, Verdict.NOT_MEASURED, needs)
    verdict = combined(verdict_of_test for _, verdict_of_test in judged)
    deciding = [trial for trial, verdict_of_test in judged if verdict_of_test is verdict]
    counts = f"{len(deciding)} of {len(judged)}"
    evidence_rows = [{**trial.row(), "verdict": str(verdict_of_test)} for trial, verdict_of_test in judged]
    return ClaimPart(name, verdict, f"{counts}; {most_significant(deciding).words()}", evidence_rows)


def fell(loss: Effect) -> Verdict:
    """Whether a metric fell, from its lost share: contradicted if it rose, or if the interval excludes a loss beyond
    the margin."""
    if loss.significant:
        return Verdict.SUPPORTED if loss.effect > 0 else Verdict.CONTRADICTED
    return Verdict.CONTRADICTED if loss.high < HARDLY else Verdict.INCONCLUSIVE


def is_small(loss: Effect) -> Verdict:
    """Whether a metric hardly fell, from its lost share: supported if the interval lies below the margin,
    contradicted if it lies above."""
    if loss.high < HARDLY:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if loss.significant and loss.low > HARDLY else Verdict.INCONCLUSIVE


def within(trial: Effect, margin: float) -> Verdict:
    """Whether an effect of either sign is small: supported if its interval lies inside the margin, contradicted if
    it lies outside."""
    if -margin < trial.low and trial.high < margin:
        return Verdict.SUPPORTED
    outside = trial.low > margin or trial.high < -margin
    return Verdict.CONTRADICTED if trial.significant and outside else Verdict.INCONCLUSIVE


def most_significant(trials: Sequence[Effect]) -> Effect:
    """The test with the smallest p, of equal ones the largest effect."""
    return min(trials, key=lambda effect: (effect.p, -abs(effect.effect)))


def rows(trials: Sequence[Effect]) -> list[dict[str, str | float]]:
    """The tests as evidence rows."""
    return [dict(effect.row()) for effect in trials]
