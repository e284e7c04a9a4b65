"""One test as the claims see it: an effect with its interval and p, signed as the claim has it."""

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
        keys: what was compared, and the figures that went in; `model`, `ratio` and `benchmark` where they apply.
        effect: signed as the claim has it.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided, adjusted where several tests were made.
    """

    keys: Row
    effect: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether an effect was seen, at 5 %."""
        return self.p < LEVEL

    @property
    def error(self) -> float:
        """Standard error, read off the interval as if it were a normal one."""
        return (self.high - self.low) / (2 * Z)

    def row(self) -> Row:
        """As evidence."""
        return {**self.keys, "effect": self.effect, "low": self.low, "high": self.high, "p": self.p}

    def reversed(self) -> Effect:
        """The same with the other sign."""
        return replace(self, effect=-self.effect, low=-self.high, high=-self.low)

    def scaled(self, factor: float) -> Effect:
        """The same in another unit; the factor is positive."""
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
    """A paired comparison as a trial of `pruned - dense`."""
    p = comparison.p if comparison.p_adjusted is None else comparison.p_adjusted
    return Effect(keys, comparison.difference, *comparison.interval, p)


def adjusted(trials: Sequence[Effect]) -> list[Effect]:
    """The trials with their p adjusted by Holm over all of them."""
    return [replace(one, p=p) for one, p in zip(trials, holm([one.p for one in trials]), strict=True)]


def normal_trial(keys: Row, effect: float, error: float) -> Effect:
    """A z-test of an effect with a standard error; an unbounded error says nothing (p = 1)."""
    if not math.isfinite(error):
        return Effect(keys, effect, -math.inf, math.inf, 1.0)
    deviate = abs(effect) / error if error else math.inf if effect else 0.0
    return Effect(keys, effect, effect - Z * error, effect + Z * error, 2 * float(special.ndtr(-deviate)))


def mean_trial(keys: Row, trials: Sequence[Effect]) -> Effect:
    """The mean effect of independent trials (of different benchmarks, that is), by a z-test."""
    effect = math.fsum(one.effect for one in trials) / len(trials)
    return normal_trial(keys, effect, math.hypot(*(one.error for one in trials)) / len(trials))


def difference_trial(keys: Row, first: Effect, second: Effect) -> Effect:
    """The first effect minus the second, taken as independent, by a z-test."""
    return normal_trial(keys, first.effect - second.effect, math.hypot(first.error, second.error))
