"""Compare two runs: figures that both measured, how they differ, and figures that only one has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunelab.evaluation.benchmarks import find_benchmark
from prunelab.io.lazy import special
from prunelab.stats.paired_tests import Comparison, with_holm
from prunelab.studies.store import Measurement, StoredResult, read_stored

if TYPE_CHECKING:
    from prunelab.studies.run import Measured, Run

Key = tuple[str, str, float, int | None, str, int | None]


@dataclass(frozen=True)
class FigureDifference:
    """One benchmark of one cell, measured in both runs.

    Attributes:
        first: the first run's primary figure.
        second: the second run's.
        paired: the paired test if both used the same samples, Holm-adjusted over the benchmarks of the cell.
        why_unpaired: why there is no paired test; empty if there is one.
        settings: settings that differ between the two, such as `window 2048 and 1024`.
    """

    first: Measurement
    second: Measurement
    paired: Comparison | None = None
    why_unpaired: str = ""
    settings: Sequence[str] = ()

    @property
    def difference(self) -> float:
        """The second figure minus the first."""
        return self.second.value - self.first.value

    @property
    def standard_error(self) -> float | None:
        """Standard error of the difference of unpaired figures, the root of the summed squares; None if unknown."""
        errors = (self.first.standard_error, self.second.standard_error)
        return None if None in errors else math.hypot(*(error or 0.0 for error in errors))

    @property
    def p(self) -> float | None:
        """p value: Holm-adjusted of the paired test, otherwise of a normal test; None without standard errors."""
        if self.paired is not None:
            return self.paired.p if self.paired.p_adjusted is None else self.paired.p_adjusted
        if not self.standard_error:
            return None
        return float(2 * special.ndtr(-abs(self.difference) / self.standard_error))


@dataclass(frozen=True)
class RunComparison:
    """The comparison of two runs.

    Attributes:
        both: figures of both runs, in the order of the first.
        only_first: figures that only the first run has.
        only_second: figures that only the second run has.
    """

    both: Sequence[FigureDifference]
    only_first: Sequence[Measurement]
    only_second: Sequence[Measurement]


def compare_runs(first: Run, second: Run) -> RunComparison:
    """Compare two runs, matched by model, method, ratio, seed, benchmark and shots."""
    left, right = _by_key(first), _by_key(second)
    both = [_difference(left[key], right[key]) for key in left if key in right]
    return RunComparison(
        _adjusted(both),
        [result.primary for key, result in left.items() if key not in right],
        [result.primary for key, result in right.items() if key not in left],
    )


def key_of(m: Measurement) -> Key:
    """Key that identifies one benchmark of one cell in a run."""
    return m.model, m.method, round(m.ratio, 9), m.seed, m.benchmark, m.shots


def label_of(m: Measurement) -> str:
    """Label of a cell."""
    seed = f" seed {m.seed}" if m.seed else ""
    return f"{m.model} dense" if m.method == "dense" else f"{m.model} {m.method} {m.ratio:.0%}{seed}"


def differing_settings(first: Measured, second: Measured) -> list[str]:
    """Describe the settings, other than the data, that differ between two measurements."""
    left, right = _identity(first), _identity(second)
    names = [name for name in {**left, **right} if name != "data" and left.get(name) != right.get(name)]
    return [f"{name} {left.get(name)} and {right.get(name)}" for name in names]


def _by_key(run: Run) -> dict[Key, Measured]:
    return {key_of(result.primary): result for result in run.measured}


def _identity(result: Measured) -> Mapping[str, object]:
    stored = read_stored(result.path)
    return stored.identity if isinstance(stored, StoredResult) else {}


def _difference(first: Measured, second: Measured) -> FigureDifference:
    why = _why_unpaired(first, second)
    paired = None
    if not why and first.samples is not None and second.samples is not None:
        paired = find_benchmark(first.primary.benchmark).compare(first.samples, second.samples)
        why = "" if paired is not None else "the benchmark has no paired test"
    return FigureDifference(first.primary, second.primary, paired, why, differing_settings(first, second))


def _why_unpaired(first: Measured, second: Measured) -> str:
    if first.samples is None or second.samples is None:
        return "no sample records"
    data = [_identity(result).get("data") for result in (first, second)]
    if None in data:
        return "a measurement file does not record its data"
    if data[0] != data[1]:
        return "different data"
    left, right = set(first.samples["sample"]), set(second.samples["sample"])
    if left != right:
        return f"different samples ({len(left)} and {len(right)}, {len(left & right)} in both)"
    return ""


def _adjusted(differences: Sequence[FigureDifference]) -> list[FigureDifference]:
    """Adjust the paired tests by Holm's method over the benchmarks of each cell."""
    adjusted = list(differences)
    cells: dict[str, list[int]] = {}
    for index, difference in enumerate(adjusted):
        if difference.paired is not None:
            cells.setdefault(label_of(difference.first), []).append(index)
    for indexes in cells.values():
        tests = with_holm([paired for index in indexes if (paired := adjusted[index].paired) is not None])
        for index, test in zip(indexes, tests, strict=True):
            adjusted[index] = replace(adjusted[index], paired=test)
    return adjusted
