"""Paired tests between a pruned model and its dense parent on the same samples.

Binary outcomes use the exact McNemar test with Tango's score interval (`paired_accuracy`). Other metrics (perplexity,
pass@1, ICAT, the share of instructions followed) use a paired bootstrap over independent units: problems, prompts,
target terms, documents or windows, never the completions or tokens within a unit (`paired_bootstrap`). Holm's
procedure adjusts the p values of a cell's primary metrics (`holm`, `with_holm`).

Differences are pruned minus dense; intervals are 95 %.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.io.lazy import np, optimize, special
from prunelab.stats.alignment import FloatArray, PerUnit, aligned, table_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Statistic: TypeAlias = "Callable[[FloatArray], FloatArray]"
"""Maps means over units, `(resamples, features)`, to one value per resample, `(resamples,)`."""

LEVEL = 0.05
Z = 1.959963984540054
"""The standard normal's quantile at `1 - LEVEL / 2`."""
FEWEST_TO_RESAMPLE = 6  # with fewer units no sign test reaches 5 %: 2 * 0.5**5 > 0.05
FEWEST_RESAMPLES = 1000
CELLS_AT_ONCE = 2_000_000  # resample counts held in memory (16 MB)
MOST_KEPT_UNITS = 1000  # draws are cached up to this number of units (10 MB for 10,000 resamples)


def mean(means: FloatArray) -> FloatArray:
    """Mean over units with one number each: pass@1 from the shares of the problems, LMS or SS from the terms."""
    return means[:, 0]


def ratio(means: FloatArray) -> FloatArray:
    """Sum of the first feature divided by the sum of the second: instructions followed over instructions given."""
    quotient: FloatArray = means[:, 0] / means[:, 1]
    return quotient


def perplexity(means: FloatArray) -> FloatArray:
    """exp(sum of losses / sum of tokens or words), from each unit's (loss sum, count)."""
    return np.exp(ratio(means))


def exponential(exponent: float) -> float:
    """exp(exponent); infinity where the result overflows a float (exponents above about 709)."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Comparison:
    """Effect of pruning on one metric."""

    dense: float
    pruned: float
    difference: float
    """Pruned minus dense."""
    interval: tuple[float, float]
    """95 % interval of the difference; unbounded for a single unit, which gives no estimate of the variance."""
    p: float
    """Two-sided, in (0, 1]."""
    n: int
    """Number of units compared."""
    test: str
    p_adjusted: float | None = None
    """p after Holm's adjustment over the cell's primary metrics; None if no adjustment was applied."""

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5 %, after Holm's adjustment where it was applied. The interval
        is not adjusted and may exclude 0 where this is False."""
        return (self.p if self.p_adjusted is None else self.p_adjusted) < LEVEL

    @property
    def too_few(self) -> bool:
        """Whether the result is not significant and the number of samples is too small for any significant result."""
        return not self.significant and (self.n < FEWEST_TO_RESAMPLE or not math.isfinite(sum(self.interval)))

    def sentence(self, *, scale: float = 1.0, unit: str = "", higher_is_better: bool | None = True) -> str:
        """One clause: "fell from 61.2 to 58.9 (-2.3, 95 % interval -3.9 to -0.7, p = 0.003)".

        Args:
            scale: factor applied to all values; 100 prints shares as percentages.
            unit: text printed after the two values, including its leading space (" %").
            higher_is_better: False adds "worse" to a rise and "better" to a fall; None if neither direction is an
                improvement (SS).
        """
        low, high = (scale * limit for limit in self.interval)
        digits = _decimals(high - low)
        dense, pruned = (_figure(scale * value, digits) for value in (self.dense, self.pruned))
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.p_adjusted is not None:
            p += ", < 0.001 after Holm" if self.p_adjusted < 0.001 else f", {self.p_adjusted:.3f} after Holm"
        change = f"{'+' if self.difference > 0 else ''}{_figure(scale * self.difference, digits)}"
        spread = f"{change}, 95 % interval {_figure(low, digits)} to {_figure(high, digits)}, {p}"
        if not math.isfinite(high - low):
            return f"too few samples to tell (n = {self.n}; {dense} to {pruned}{unit})"
        if not self.significant and self.n < FEWEST_TO_RESAMPLE:
            return f"too few samples to tell (n = {self.n}; {dense} to {pruned}{unit}, {spread})"
        if not self.significant:
            return f"no significant change (n = {self.n}; {dense} to {pruned}{unit}, {spread})"
        verb = "rose" if self.difference > 0 else "fell"
        if higher_is_better is False:
            spread = f"{'worse' if self.difference > 0 else 'better'}, {spread}"
        return f"{verb} from {dense} to {pruned}{unit} ({spread})"


def paired_accuracy(dense: PerUnit, pruned: PerUnit, *, shared_only: bool = False) -> Comparison:
    """Compare correct (true, 1) and incorrect (false, 0) answers to the same questions.

    p is that of the exact McNemar test: a two-sided binomial test on the questions that only one model answers
    correctly. The interval of the difference is Tango's score interval for paired proportions (Statistics in
    Medicine 17, 1998, 891-908), which keeps its coverage in small samples and with few discordant pairs (Fagerland,
    Lydersen and Laake, Statistics in Medicine 33, 2014, 2850-2875). The exact test is more conservative than the
    interval: near 5 % the interval may exclude 0 although p is larger than 0.05.

    Args:
        dense: true or false per question, by id or by position.
        pruned: the same for the pruned model.
        shared_only: compare the shared samples instead of raising an error if the samples differ.

    Raises:
        InvalidRequest: the samples differ, there are none, or a value is neither 0 nor 1.
        NonFiniteValue: a value is NaN; the message names its sample.
    """
    ids, (before, after) = aligned(dense, pruned, shared_only)
    for name, values in (("dense", before), ("pruned", after)):
        odd = np.flatnonzero(((values != 0) & (values != 1)).any(axis=1))
        if len(odd) or values.shape[1] != 1:
            at = f", sample {ids[odd[0]]!r} has {values[odd[0]].tolist()}" if len(odd) else ""
            raise InvalidRequest(
                f"{name}: an answer is correct (1) or incorrect (0){at}; compare other values with paired_bootstrap"
            )
    n = len(ids)
    gained, lost = int((after > before).sum()), int((after < before).sum())
    p = min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
    return Comparison(
        dense=float(before.mean()),
        pruned=float(after.mean()),
        difference=(gained - lost) / n,
        interval=(-_tango_upper(lost, gained, n), _tango_upper(gained, lost, n)),
        p=max(p, sys.float_info.min),  # p underflows for thousands of pairs in one direction; it must stay positive
        n=n,
        test="exact McNemar",
    )


def paired_bootstrap(
    dense: PerUnit,
    pruned: PerUnit,
    statistic: Statistic,
    *,
    seed: int,
    resamples: int = 10_000,
    shared_only: bool = False,
) -> Comparison:
    """Compare a statistic that is a function of means over units; each resample draws the same units for both models.

    Interval: percentiles of the resampled differences, at levels widened for small samples so that for a mean
    they match Student's t (Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician 69, 2015, 371-386: "expanded percentile"). In simulations it covered 93 to 96 % for means,
    perplexities and ICAT, while the coverage of BCa fell to 88 %. Heavy tails reduce the coverage of both. Where one
    model's SS is at 50, ICAT has a kink, its estimate is biased downward, and the interval covers 88 %
    (`timing/icat_coverage.py`: 88.1 and 89.8 % with SS 50 to 55 and 60 to 50, 95 % with SS 60 to 53).

    p: the inverted interval, that is the level at which its nearer end reaches 0, from the share (b + 1) / (B + 1)
    of resamples at or beyond 0; so p < 0.05 exactly where the interval excludes 0. With fewer than 6 units the
    percentiles are too narrow; interval and p then come from Student's t with the bootstrap's standard error.
    p is never below 2**(1 - n), the smallest p of a sign test: with fewer than 6 units no change is significant.

    Args:
        dense: one number or vector `(features,)` per unit, by id or by position. The order of the units changes the
            draw only for values given by position.
        pruned: the same for the pruned model, with the same features.
        statistic: `mean`, `ratio`, `perplexity`, or another function of this type.
        seed: seed of the draw; equal seeds give equal results.
        resamples: number of draws; 10,000 draws of 14,000 units take about a second.
        shared_only: compare the shared samples instead of raising an error if the samples differ.

    Raises:
        InvalidRequest: the samples or features differ, there are no samples, or there are fewer than 1000 resamples.
        NonFiniteValue: a value is NaN or infinite (the message names its sample), or the statistic is.
    """
    _, tables = aligned(dense, pruned, shared_only)
    n = len(tables[0])
    before, after = (float(_evaluated(statistic, table.mean(axis=0)[None])[0]) for table in tables)
    # set differences within rounding error to 0: with few distinct values exact ties are frequent
    rounding = 1e-12 * max(abs(before), abs(after))
    difference = after - before if abs(after - before) > rounding else 0.0
    if n == 1:
        return Comparison(before, after, difference, (-math.inf, math.inf), 1.0, n, "none, a single unit")
    drawn = [_evaluated(statistic, means) for means in _resampled_means(tables, seed, resamples)]
    differences = drawn[1] - drawn[0]
    differences[np.abs(differences) <= rounding] = 0.0
    if n < FEWEST_TO_RESAMPLE:
        interval, p = _student(difference, _bootstrap_error(differences, n), n)
        test = "Student's t with the paired bootstrap's standard error"
    else:
        interval, p = _expanded_percentile(differences, n)
        test = "paired bootstrap"
    return Comparison(before, after, difference, interval, min(1.0, max(p, 2.0 ** (1 - n))), n, test)


def standard_error(
    values: PerUnit, statistic: Statistic = mean, *, seed: int = 0, resamples: int = 10_000
) -> float | None:
    """Standard error of one model's value; None for a single unit.

    For `mean` it is s / sqrt(n) with n - 1 in s, as in lm-eval; for binary outcomes this is the binomial
    sqrt(p (1 - p) / (n - 1)). For other statistics it is the bootstrap's, times sqrt(n / (n - 1)) to remove the bias
    of the resampled variance.

    Raises:
        InvalidRequest: there are no samples.
        NonFiniteValue: a value or the statistic is NaN or infinite.
    """
    _, table = table_of(values, "values")
    n = len(table)
    if n == 1:
        return None
    if statistic is mean:
        return float(table[:, 0].std(ddof=1)) / math.sqrt(n)
    return _bootstrap_error(_evaluated(statistic, _resampled_means([table], seed, resamples)[0]), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979, 65-70), in the given order. It bounds
    the probability of any false positive in the family by the level.

    Raises:
        InvalidRequest: a p value is outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidRequest(f"p values {list(p_values)} given; each must lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one cell's primary metrics, each with `p_adjusted` set."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_adjusted=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


def _tango_upper(gained: int, lost: int, n: int) -> float:
    """The largest difference of paired proportions that the score test does not reject. The lower limit is the
    negative of this limit with the two counts exchanged."""
    if gained == n:
        return 1.0

    def excess(delta: float) -> float:
        # q: maximum-likelihood share of lost pairs under the constraint that the difference is delta
        linear = (2 * n - gained + lost) * delta - gained - lost
        root = math.sqrt(max(0.0, linear**2 + 8 * n * lost * delta * (1 - delta)))  # negative only through rounding
        q = (root - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (gained - lost - n * delta) ** 2 - Z**2 * variance

    # start just above the estimate: at the estimate, 0 is a spurious root if no pair is discordant
    return float(optimize.brentq(excess, (gained - lost) / n + 1e-9, 1.0))


def _resampled_means(tables: Sequence[FloatArray], seed: int, resamples: int) -> list[FloatArray]:
    """For each table `(units, features)`, means over units drawn with replacement, `(resamples, features)`. All
    tables share the draws, which keeps the units paired. A draw is stored as the count of each unit, so that one
    matrix product gives all means."""
    if resamples < FEWEST_RESAMPLES:
        raise InvalidRequest(f"{resamples} resamples given; a 95 % interval needs at least {FEWEST_RESAMPLES}")
    n = len(tables[0])
    means = [np.empty((resamples, table.shape[1])) for table in tables]
    drawn = _kept_counts if n <= MOST_KEPT_UNITS else _counts
    start = 0
    for counts in drawn(n, seed, resamples):
        weights = counts.astype(np.float64)
        for mean_of, table in zip(means, tables, strict=True):
            mean_of[start : start + len(counts)] = weights @ table / n
        start += len(counts)
    return means


def _counts(n: int, seed: int, resamples: int) -> Iterator[NDArray[np.uint8]]:
    """Count of each unit in each resample, in batches of shape `(rows, units)`."""
    generator = np.random.default_rng(seed)
    step = max(1, CELLS_AT_ONCE // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        units = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        # uint8 suffices: a unit is drawn once on average, and a count above 255 has negligible probability
        yield np.bincount(units.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint8)


@lru_cache(maxsize=8)
def _kept_counts(n: int, seed: int, resamples: int) -> tuple[NDArray[np.uint8], ...]:
    """Cached `_counts`: a run compares the same samples repeatedly, and drawing takes most of the time."""
    return tuple(_counts(n, seed, resamples))


def _evaluated(statistic: Statistic, means: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        values = np.asarray(statistic(means), dtype=np.float64)
    assert values.shape == (len(means),), "a statistic returns one value per resample"
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise NonFiniteValue(
            f"the statistic is NaN or infinite in {broken} of {len(means)} draws of the units; "
            "look for units with a count of 0, or for losses whose exponential overflows"
        )
    return values


def _bootstrap_error(values: FloatArray, n: int) -> float:
    return float(values.std()) * math.sqrt(n / (n - 1))


def _student(difference: float, error: float, n: int) -> tuple[tuple[float, float], float]:
    half = error * float(special.stdtrit(n - 1, 1 - LEVEL / 2))
    t = abs(difference) / error if error else math.inf if difference else 0.0
    p = 2 * float(special.stdtr(n - 1, -t))
    return (difference - half, difference + half), p


def _expanded_percentile(differences: FloatArray, n: int) -> tuple[tuple[float, float], float]:
    """Interval and p from the resampled differences. A normal deviate z of the percentile method corresponds to
    Student's t = z sqrt((n - 1) / n): the interval converts t to z, p converts z to t."""
    count, narrowing = len(differences), math.sqrt((n - 1) / n)
    tail = float(special.ndtr(special.stdtrit(n - 1, LEVEL / 2) / narrowing))
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    share = (beyond + 1) / (count + 1)
    p = 2 * float(special.stdtr(n - 1, narrowing * special.ndtri(share))) if share < 0.5 else 1.0
    # order statistics such that 0 lies outside them exactly where share < tail, that is where p < 5 %
    edge = max(0, math.ceil(tail * (count + 1)) - 2)
    ordered = np.sort(differences)
    return (float(ordered[edge]), float(ordered[-1 - edge])), p


def _decimals(width: float) -> int:
    """Number of decimals that shows two significant digits of the interval's width."""
    if not math.isfinite(width) or width <= 0:
        return 1
    return min(6, max(1, 1 - math.floor(math.log10(width))))


def _figure(value: float, decimals: int) -> str:
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0 turns -0.0 into 0.0
