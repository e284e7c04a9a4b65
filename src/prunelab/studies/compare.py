"""Two runs side by side: what both measured, how their figures differ, and what only one has."""

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
    """One benchmark of one cell in both runs.

    Attributes:
        first: the first run's primary figure.
        second: the second run's.
        paired: the paired test, where both ran on the same samples; adjusted by Holm over the cell's benchmarks.
        why_unpaired: why there is none; empty where there is.
        settings: what else the two were measured with differently, such as `window 2048 and 1024`.
    """

    first: Measurement
    second: Measurement
    paired: Comparison | None = None
    why_unpaired: str = ""
    settings: Sequence[str] = ()

    @property
    def difference(self) -> float:
        """The second figure less the first."""
        return self.second.value - self.first.value

    @property
    def standard_error(self) -> float | None:
        """Of the difference between unpaired figures: the root of the summed squares; None where one has none."""
        errors = (self.first.standard_error, self.second.standard_error)
        return None if None in errors else math.hypot(*(error or 0.0 for error in errors))

    @property
    def p(self) -> float | None:
        """Of no difference: the paired test's after Holm, else of a normal difference; None where there is no error."""
        if self.paired is not None:
            return self.paired.p if self.paired.p_adjusted is None else self.paired.p_adjusted
        if not self.standard_error:
            return None
        return float(2 * special.ndtr(-abs(self.difference) / self.standard_error))


@dataclass(frozen=True)
class RunComparison:
    """Two runs.

    Attributes:
        both: what both measured, in the first run's order.
        only_first: what only the first did.
        only_second: what only the second did.
    """

    both: Sequence[FigureDifference]
    only_first: Sequence[Measurement]
    only_second: Sequence[Measurement]


def compare_runs(first: Run, second: Run) -> RunComparison:
    """Compare two runs by the names of models, methods, ratios, seeds, benchmarks and shots."""
    left, right = _by_key(first), _by_key(second)
    both = [_difference(left[key], right[key]) for key in left if key in right]
    return RunComparison(
        _adjusted(both),
        [one.primary for key, one in left.items() if key not in right],
        [one.primary for key, one in right.items() if key not in left],
    )


def key_of(m: Measurement) -> Key:
    """What tells one benchmark of one cell from all others in a run."""
    return m.model, m.method, round(m.ratio, 9), m.seed, m.benchmark, m.shots


def label_of(m: Measurement) -> str:
    """A cell in words."""
    seed = f" seed {m.seed}" if m.seed else ""
    return f"{m.model} dense" if m.method == "dense" else f"{m.model} {m.method} {m.ratio:.0%}{seed}"


def differing_settings(first: Measured, second: Measured) -> list[str]:
    """What decided two measurements differently, the data aside, in words."""
    left, right = _identity(first), _identity(second)
    names = [name for name in {**left, **right} if name != "data" and left.get(name) != right.get(name)]
    return [f"{name} {left.get(name)} and {right.get(name)}" for name in names]


def _by_key(run: Run) -> dict[Key, Measured]:
    return {key_of(one.primary): one for one in run.measured}


def _identity(one: Measured) -> Mapping[str, object]:
    kept = read_stored(one.path)
    return kept.identity if isinstance(kept, StoredResult) else {}


def _difference(first: Measured, second: Measured) -> FigureDifference:
    why = _why_unpaired(first, second)
    paired = None
    if not why and first.samples is not None and second.samples is not None:
        paired = find_benchmark(first.primary.benchmark).compare(first.samples, second.samples)
        why = "" if paired is not None else "the benchmark has no paired test"
    return FigureDifference(first.primary, second.primary, paired, why, differing_settings(first, second))


def _why_unpaired(first: Measured, second: Measured) -> str:
    if first.samples is None or second.samples is None:
        return "no records of samples"
    data = [_identity(one).get("data") for one in (first, second)]
    if None in data:
        return "a file does not say which data it is of"
    if data[0] != data[1]:
        return "other data"
    left, right = set(first.samples["sample"]), set(second.samples["sample"])
    if left != right:
        return f"other samples ({len(left)} and {len(right)}, {len(left & right)} in both)"
    return ""


def _adjusted(differences: Sequence[FigureDifference]) -> list[FigureDifference]:
    """The paired tests adjusted by Holm over each cell's benchmarks."""
    found = list(differences)
    cells: dict[str, list[int]] = {}
    for index, one in enumerate(found):
        if one.paired is not None:
            cells.setdefault(label_of(one.first), []).append(index)
    for indexes in cells.values():
        tests = with_holm([paired for index in indexes if (paired := found[index].paired) is not None])
        for index, test in zip(indexes, tests, strict=True):
            found[index] = replace(found[index], paired=test)
    return found
