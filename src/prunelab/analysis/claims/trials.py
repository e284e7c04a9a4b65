"""A test as used by the claims: an effect with its interval and p, signed in the claim's direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from prunelab.io.lazy import special
from prunelab.stats.paired_tests import LEVEL, Comparison, Z, holm

Row: TypeAlias = Mapping[str, str | float]


@dataclass(frozen=True)
class Effect:
    """One test.

    Attributes:
        keys: what was compared and the compared values; `model`, `ratio` and `benchmark` if they apply.
        effect: the effect, positive in the claim's direction.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        p: two-sided p, adjusted if there are several tests.
    """

    keys: Row
    effect: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether p < 0.05."""
        return self.p < LEVEL

    @property
    def error(self) -> float:
        """Standard error, derived from the interval under a normal approximation."""
        return (self.high - self.low) / (2 * Z)

    def row(self) -> Row:
        """The effect as an evidence row."""
        return {**self.keys, "effect": self.effect, "low": self.low, "high": self.high, "p": self.p}

    def reversed(self) -> Effect:
        """The effect with the opposite sign."""
        return replace(self, effect=-self.effect, low=-self.high, high=-self.low)

    def scaled(self, factor: float) -> Effect:
        """The effect multiplied by a positive factor."""
        return replace(self, effect=self.effect * factor, low=self.low * factor, high=self.high * factor)

    def words(self) -> str:
        """ "m, 10 %, arc_easy: depth 0.71, width 0.66, p = 0.003"."""
        keys = dict(self.keys)
        ratio = keys.pop("ratio", None)
        texts = [str(value) for value in keys.values() if isinstance(value, str)]
        if ratio is not None:
            texts.insert(1, f"{float(ratio):.1%}")
        figures = [f"{name} {value:.3g}" for name, value in keys.items() if not isinstance(value, str)]
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"{', '.join(texts)}: {', '.join([*figures, p])}"


def trial_of(keys: Row, comparison: Comparison) -> Effect:
    """The effect `pruned - dense` of a paired comparison."""
    p = comparison.p if comparison.p_adjusted is None else comparison.p_adjusted
    return Effect(keys, comparison.difference, *comparison.interval, p)


def adjusted(trials: Sequence[Effect]) -> list[Effect]:
    """The effects with Holm-adjusted p."""
    return [replace(effect, p=p) for effect, p in zip(trials, holm([effect.p for effect in trials]), strict=True)]


def normal_trial(keys: Row, effect: float, error: float) -> Effect:
    """A z-test of an effect with a standard error; p = 1 if the error is infinite."""
    if not math.isfinite(error):
        return Effect(keys, effect, -math.inf, math.inf, 1.0)
    deviate = abs(effect) / error if error else math.inf if effect else 0.0
    return Effect(keys, effect, effect - Z * error, effect + Z * error, 2 * float(special.ndtr(-deviate)))


def mean_trial(keys: Row, trials: Sequence[Effect]) -> Effect:
    """A z-test of the mean of independent effects, that is, of different benchmarks."""
    effect = math.fsum(item.effect for item in trials) / len(trials)
    return normal_trial(keys, effect, math.hypot(*(item.error for item in trials)) / len(trials))


def difference_trial(keys: Row, first: Effect, second: Effect) -> Effect:
    """A z-test of the difference of two independent effects."""
    return normal_trial(keys, first.effect - second.effect, math.hypot(first.error, second.error))
