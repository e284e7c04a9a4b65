"""Paired tests between a pruned model and its dense parent on the same samples.

Right or wrong answers: the exact McNemar test, with Tango's score interval (`paired_accuracy`). All else
(perplexity, pass@1, ICAT, the share of instructions followed): a paired bootstrap over independent units, so
problems, prompts, target terms, documents or windows, never the completions or tokens inside one
(`paired_bootstrap`). Several primary metrics of one cell: Holm (`holm`, `with_holm`).

Differences are always pruned minus dense, intervals always 95 %.
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
"""From means over units `(resamples, features)` to one figure a resample `(resamples,)`."""

LEVEL = 0.05
Z = 1.959963984540054
"""The standard normal's quantile at `1 - LEVEL / 2`."""
FEWEST_TO_RESAMPLE = 6  # below, no sign test reaches 5 % either: 2 * 0.5**5 > 0.05
FEWEST_RESAMPLES = 1000
CELLS_AT_ONCE = 2_000_000  # resample counts held in memory (16 MB)
MOST_KEPT_UNITS = 1000  # of up to so many units draws are remembered (10 MB for 10,000 resamples)


def mean(means: FloatArray) -> FloatArray:
    """The average over units of one number each: pass@1 from each problem's share, LMS or SS from terms."""
    return means[:, 0]


def ratio(means: FloatArray) -> FloatArray:
    """Sum of the first feature over sum of the second: instructions followed over instructions given."""
    quotient: FloatArray = means[:, 0] / means[:, 1]
    return quotient


def perplexity(means: FloatArray) -> FloatArray:
    """exp(sum of losses / sum of tokens or words), from each unit's (loss sum, count)."""
    return np.exp(ratio(means))


def exponential(exponent: float) -> float:
    """exp, infinite where the result is larger than any float, above some 709."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Comparison:
    """What pruning did to one metric."""

    dense: float
    pruned: float
    difference: float
    """Pruned minus dense."""
    interval: tuple[float, float]
    """95 % interval of the difference; unbounded where a single unit says nothing about spread."""
    p: float
    """Two-sided, in (0, 1]."""
    n: int
    """Units compared."""
    test: str
    p_adjusted: float | None = None
    """After Holm over the cell's primary metrics; None where none was applied."""

    @property
    def significant(self) -> bool:
        """Whether a change was seen, at 5 % and after Holm where that was applied. The interval is for this
        metric alone and may exclude 0 where this is False."""
        return (self.p if self.p_adjusted is None else self.p_adjusted) < LEVEL

    @property
    def too_few(self) -> bool:
        """Whether no change could have been seen, the samples being too few."""
        return not self.significant and (self.n < FEWEST_TO_RESAMPLE or not math.isfinite(sum(self.interval)))

    def sentence(self, *, scale: float = 1.0, unit: str = "", higher_is_better: bool | None = True) -> str:
        """One clause: "fell from 61.2 to 58.9 (-2.3, 95 % interval -3.9 to -0.7, p = 0.003)".

        Args:
            scale: multiplies all figures; 100 shows shares in percent.
            unit: written after the two values, its leading space included (" %").
            higher_is_better: False adds "worse" to a rise and "better" to a fall; None where neither is an
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
            return f"no change seen (n = {self.n}; {dense} to {pruned}{unit}, {spread})"
        verb = "rose" if self.difference > 0 else "fell"
        if higher_is_better is False:
            spread = f"{'worse' if self.difference > 0 else 'better'}, {spread}"
        return f"{verb} from {dense} to {pruned}{unit} ({spread})"


def paired_accuracy(dense: PerUnit, pruned: PerUnit, *, shared_only: bool = False) -> Comparison:
    """Compare right (true, 1) and wrong (false, 0) answers to the same questions.

    p is McNemar's exact one: of the questions that one model alone got right, each was as likely to be the
    dense one's as the pruned one's (two-sided binomial). The interval of the difference is Tango's score
    interval for paired proportions (Statistics in Medicine 17, 1998, 891-908), which keeps its coverage in
    small samples and with few discordant pairs (Fagerland, Lydersen and Laake, Statistics in Medicine 33,
    2014, 2850-2875). An exact test is the more cautious: near 5 % the interval may exclude 0, p being above.

    Args:
        dense: true or false a question, under its id or by position.
        pruned: likewise.
        shared_only: compare what both hold instead of refusing different samples.

    Raises:
        InvalidRequest: different or no samples, or a value that is neither right nor wrong.
        NonFiniteValue: a NaN, with the id of its sample.
    """
    ids, (before, after) = aligned(dense, pruned, shared_only)
    for name, values in (("dense", before), ("pruned", after)):
        odd = np.flatnonzero(((values != 0) & (values != 1)).any(axis=1))
        if len(odd) or values.shape[1] != 1:
            at = f", sample {ids[odd[0]]!r} has {values[odd[0]].tolist()}" if len(odd) else ""
            raise InvalidRequest(
                f"{name}: an answer is right (1) or wrong (0){at}; compare other values with paired_bootstrap"
            )
    n = len(ids)
    gained, lost = int((after > before).sum()), int((after < before).sum())
    p = min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
    return Comparison(
        dense=float(before.mean()),
        pruned=float(after.mean()),
        difference=(gained - lost) / n,
        interval=(-_tango_upper(lost, gained, n), _tango_upper(gained, lost, n)),
        p=max(p, sys.float_info.min),  # thousands of pairs all one way underflow, and p is never 0
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
    """Compare any figure that is a function of averages over units, drawing units for both models together.

    Interval: percentiles of the resampled differences, at levels widened for small samples so that for a mean
    they match Student's t (Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician 69, 2015, 371-386: "expanded percentile"). In simulations it covered 93 to 96 % for means,
    perplexities and ICAT, where BCa went down to 88 %. Heavy tails cost both some; and where one model's SS
    is at 50, ICAT bends, its estimate is biased downward, and the interval covers 88 % (`timing/icat_coverage.py`:
    88.1 and 89.8 % with SS 50 to 55 and 60 to 50, 95 % with SS 60 to 53).

    p: that interval inverted, the level at which its nearer end reaches 0, from the share (b + 1) / (B + 1)
    of resamples beyond 0 or on it; so p < 0.05 exactly where the interval excludes 0. With fewer than 6 units
    percentiles cannot reach far enough: both then come from Student's t and the bootstrap's standard error.
    p is never below 2**(1 - n), the least that n signs can give: under 6 units no change is ever declared.

    Args:
        dense: a number or a vector (features,) a unit, under its id or by position; under ids the order of
            the units changes nothing, by position it changes the draw.
        pruned: likewise, with the same features.
        statistic: `mean`, `ratio`, `perplexity`, or any function of that kind.
        seed: of the draw; the same seed gives the same result.
        resamples: how often to draw; 10,000 times from 14,000 units take about a second.
        shared_only: compare what both hold instead of refusing different samples.

    Raises:
        InvalidRequest: different or no samples, different features, or fewer than 1000 resamples.
        NonFiniteValue: a NaN or infinity in the values, with the id of its sample, or in the statistic.
    """
    _, tables = aligned(dense, pruned, shared_only)
    n = len(tables[0])
    before, after = (float(_evaluated(statistic, table.mean(axis=0)[None])[0]) for table in tables)
    # differences that are 0 but for rounding must count as 0: with few distinct values they are frequent
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
    """The standard error of a single model's figure; None for a single unit.

    For `mean` in closed form, s / sqrt(n) with n - 1 in s: lm-eval's, and for right and wrong answers the
    binomial one, sqrt(p (1 - p) / (n - 1)). For other statistics the bootstrap's, times sqrt(n / (n - 1)),
    which removes the bias of resampled variances. Raises NonFiniteValue, and InvalidRequest for no samples.
    """
    _, table = table_of(values, "values")
    n = len(table)
    if n == 1:
        return None
    if statistic is mean:
        return float(table[:, 0].std(ddof=1)) / math.sqrt(n)
    return _bootstrap_error(_evaluated(statistic, _resampled_means([table], seed, resamples)[0]), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979, 65-70), in the order given:
    the chance that any of the family is declared changed by accident stays below the level. Raises
    InvalidRequest for a p outside 0 to 1."""
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidRequest(f"p values lie between 0 and 1; given were {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one cell's primary metrics, each with its `p_adjusted`."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_adjusted=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


def _tango_upper(gained: int, lost: int, n: int) -> float:
    """The largest difference of paired proportions whose score test is not rejected. The lower limit is this
    one's negative with the two counts exchanged."""
    if gained == n:
        return 1.0

    def excess(delta: float) -> float:
        # q: maximum-likelihood share of pairs lost, given that the difference is delta
        linear = (2 * n - gained + lost) * delta - gained - lost
        root = math.sqrt(max(0.0, linear**2 + 8 * n * lost * delta * (1 - delta)))  # below 0 by rounding only
        q = (root - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (gained - lost - n * delta) ** 2 - Z**2 * variance

    # just above the estimate: at the estimate itself, 0 is a spurious root where no pair is discordant
    return float(optimize.brentq(excess, (gained - lost) / n + 1e-9, 1.0))


def _resampled_means(tables: Sequence[FloatArray], seed: int, resamples: int) -> list[FloatArray]:
    """Each table's `(units, features)` means over units drawn with replacement, `(resamples, features)`. One
    draw serves all tables, which keeps units paired; it is kept as how often each unit occurs, so that all
    means come from one matrix product."""
    if resamples < FEWEST_RESAMPLES:
        raise InvalidRequest(f"{resamples} resamples are too few for a 95 % interval; use at least {FEWEST_RESAMPLES}")
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
    """How often each unit occurs in each resample, `(some resamples, units)` at a time."""
    generator = np.random.default_rng(seed)
    step = max(1, CELLS_AT_ONCE // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        units = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        # A byte holds them: a unit is drawn once on average, and never more than n times.
        yield np.bincount(units.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint8)


@lru_cache(maxsize=8)
def _kept_counts(n: int, seed: int, resamples: int) -> tuple[NDArray[np.uint8], ...]:
    """The same, remembered: a run compares the same samples again and again, and drawing takes most of the time."""
    return tuple(_counts(n, seed, resamples))


def _evaluated(statistic: Statistic, means: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        values = np.asarray(statistic(means), dtype=np.float64)
    assert values.shape == (len(means),), "a statistic gives one figure a resample"
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise NonFiniteValue(
            f"the statistic is NaN or infinite in {broken} of {len(means)} draws of the units; "
            "look for units with a count of 0, or losses too large to exponentiate"
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
    """Interval and p of the resampled differences. A normal deviate z of the percentile method stands for
    Student's t = z sqrt((n - 1) / n): the interval goes from t to z, p from z to t."""
    count, narrowing = len(differences), math.sqrt((n - 1) / n)
    tail = float(special.ndtr(special.stdtrit(n - 1, LEVEL / 2) / narrowing))
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    share = (beyond + 1) / (count + 1)
    p = 2 * float(special.stdtr(n - 1, narrowing * special.ndtri(share))) if share < 0.5 else 1.0
    # order statistics, chosen so that 0 lies outside them exactly where share < tail, that is p < 5 %
    edge = max(0, math.ceil(tail * (count + 1)) - 2)
    ordered = np.sort(differences)
    return (float(ordered[edge]), float(ordered[-1 - edge])), p


def _decimals(width: float) -> int:
    """Decimals that show two digits of the interval's width: what the data support, and no more."""
    if not math.isfinite(width) or width <= 0:
        return 1
    return min(6, max(1, 1 - math.floor(math.log10(width))))


def _figure(value: float, decimals: int) -> str:
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0 turns -0.0 into 0.0
