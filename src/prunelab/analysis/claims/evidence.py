"""What the claims look up in a run: its cuts, their benchmarks, and comparisons on the same samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from prunelab.analysis.claims.trials import Effect, trial_of
from prunelab.errors import InvalidRequest, NonFiniteValue, UnknownName
from prunelab.evaluation.benchmarks import Benchmark, find_benchmark
from prunelab.pruning.methods import methods
from prunelab.stats.paired_tests import Comparison, Z, mean, paired_accuracy, paired_bootstrap
from prunelab.studies.comparison import Difference

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.studies.run import Measured, Run
    from prunelab.studies.store import Measurement

PAPER_METHODS = ("shortgpt", "flap", "hybrid")
COMMONSENSE = ("arc_easy", "arc_challenge", "boolq", "winogrande")
ACCURACY = (*COMMONSENSE, "mmlu", "gsm8k")
MATCHED = 0.02
"""Achieved ratios that differ by no more than this are of one size: a key-value group cannot be split."""
ABOUT_TEN = (0.05, 0.15)
"""Achieved ratios that count as 10 %: depth moves in whole blocks."""
HIGH = 0.25
"""From this achieved ratio on, a ratio is high."""
CHANCE = {"pope": 0.5}
"""Of benchmarks that may be in a run without being registered."""


@dataclass(frozen=True)
class MeasuredCut:
    """One pruned model of the run."""

    model: str
    method: str
    ratio: float
    achieved_ratio: float
    seed: int | None

    @property
    def strategy(self) -> str:
        """`depth`, `width` or `hybrid`."""
        return methods[self.method].strategy


@dataclass(frozen=True)
class CutPair:
    """Two cuts of one model at one size."""

    first: MeasuredCut
    second: MeasuredCut

    @property
    def achieved_ratio(self) -> float:
        """The first's."""
        return self.first.achieved_ratio

    @property
    def keys(self) -> dict[str, str | float]:
        """What names it in evidence."""
        return {"model": self.first.model, "ratio": self.achieved_ratio}


class Evidence:
    """A run, looked up by model, cut and benchmark.

    Figures and comparisons of a cut that was made with several seeds are means over them; sample records are those of
    the lowest one. A benchmark that was measured with several numbers of shots is looked at under one of them for the
    whole model, see `shots`.

    Args:
        run: the run.
        judged: the methods that are looked at.
    """

    def __init__(self, run: Run, judged: Iterable[str] = PAPER_METHODS) -> None:
        self.run = run
        self.judged = tuple(judged)
        self._versus: dict[tuple[CutPair, str], Effect | None] = {}

    @cached_property
    def models(self) -> list[str]:
        """The dense models' names."""
        return list(dict.fromkeys(m.model for m in self.run.measurements))

    @cached_property
    def _cuts(self) -> list[MeasuredCut]:
        found: dict[tuple[str, str, float], dict[int | None, float]] = {}
        for m in sorted(self.run.measurements, key=lambda m: m.seed or 0):
            if m.method in self.judged:
                found.setdefault((m.model, m.method, m.ratio), {}).setdefault(m.seed, m.achieved_ratio)
        cuts = [MeasuredCut(*key, fmean(seeds.values()), next(iter(seeds))) for key, seeds in found.items()]
        return sorted(cuts, key=lambda cut: cut.achieved_ratio)

    def cuts(
        self, strategy: str | None = None, model: str | None = None, low: float = 0.0, high: float = 1.0
    ) -> list[MeasuredCut]:
        """The cuts by achieved ratio, `low` included and `high` not."""
        return [
            cut
            for cut in self._cuts
            if strategy in (None, cut.strategy) and model in (None, cut.model) and low <= cut.achieved_ratio < high
        ]

    def pairs(
        self, first: str = "depth", second: str = "width", model: str | None = None, low: float = 0.0, high: float = 1.0
    ) -> list[CutPair]:
        """Cuts of two strategies, of one model and asked for the same ratio, whose achieved ratios match."""
        return [
            CutPair(one, other)
            for one in self.cuts(first, model, low, high)
            for other in self.cuts(second, one.model)
            if other.ratio == one.ratio and abs(other.achieved_ratio - one.achieved_ratio) <= MATCHED
        ]

    @cached_property
    def _measured(self) -> Mapping[tuple[str, str, float, str], dict[int | None, dict[int | None, Measured]]]:
        """By model, method, ratio and benchmark: by shots and seed."""
        found: dict[tuple[str, str, float, str], dict[int | None, dict[int | None, Measured]]] = {}
        for one in self.run.measured:
            m = next((m for m in one.measurements if m.primary), None)
            if m is not None:
                by_shots = found.setdefault((m.model, m.method, m.ratio, m.benchmark), {})
                by_shots.setdefault(m.shots, {})[None if m.method == "dense" else m.seed] = one
        return found

    def _of(self, of: MeasuredCut | str, benchmark: str) -> dict[int | None, dict[int | None, Measured]]:
        cut = (of, "dense", 0.0) if isinstance(of, str) else (of.model, of.method, of.ratio)
        return self._measured.get((*cut, benchmark), {})

    def by_shots(self, of: MeasuredCut | str, benchmark: str) -> Mapping[int | None, Measured]:
        """A cut's measurements of a benchmark, or (by its name) the dense model's, under their numbers of shots."""
        seed = None if isinstance(of, str) else of.seed
        return {shots: seeds[seed] for shots, seeds in self._of(of, benchmark).items() if seed in seeds}

    def shots_measured(self, model: str, benchmark: str) -> list[int | None]:
        """The dense model's numbers of shots; those of its cuts where it was not measured."""
        dense = self._of(model, benchmark)
        cuts = (
            shots for key, found in self._measured.items() if (key[0], key[3]) == (model, benchmark) for shots in found
        )
        return sorted(dense or dict.fromkeys(cuts), key=lambda shots: shots or 0)

    def shots(self, model: str, benchmark: str) -> int | None:
        """The number under which a model and all its cuts are looked at: the benchmark's own, or else the fewest."""
        found, known = self.shots_measured(model, benchmark), registered(benchmark)
        default = known.shots if known is not None else None
        return default if default in found or not found else found[0]

    def by_seed(self, of: MeasuredCut | str, benchmark: str) -> Mapping[int | None, Measured]:
        """A cut's measurements of a benchmark, or (by its name) the dense model's, under their seeds, lowest first."""
        found = self._of(of, benchmark).get(self.shots(of if isinstance(of, str) else of.model, benchmark), {})
        return dict(sorted(found.items(), key=lambda one: one[0] or 0))

    def measured(self, of: MeasuredCut | str, benchmark: str) -> Measured | None:
        """A cut's measurement of a benchmark under its lowest seed, or (by its name) the dense model's."""
        return next(iter(self.by_seed(of, benchmark).values()), None)

    def figure(self, of: MeasuredCut | str, benchmark: str, metric: str | None = None) -> Measurement | None:
        """The primary figure of the whole benchmark, or another one of it; of several seeds their mean."""
        found = [
            next(
                (m for m in one.measurements if (m.primary if metric is None else m.metric == metric and not m.group)),
                None,
            )
            for one in self.by_seed(of, benchmark).values()
        ]
        return _mean_figure([m for m in found if m is not None])

    def difference(self, cut: MeasuredCut, benchmark: str) -> Difference | None:
        """The paired test against the dense model that the study made, adjusted over the cut's benchmarks."""
        found = [self._differences.get(_key(one.primary)) for one in self.by_seed(cut, benchmark).values()]
        figure, tests = self.figure(cut, benchmark), [one.comparison for one in found if one is not None]
        if figure is None or not tests or len(tests) < len(found):
            return None
        return Difference(figure, higher_is_better(benchmark), over_seeds(tests))

    def between(self, one: MeasuredCut, other: MeasuredCut, benchmark: str) -> list[Comparison] | None:
        """The benchmark's paired tests of two cuts, one a seed; None where either lacks seeds or records."""
        first, second = (self.by_seed(cut, benchmark).values() for cut in (one, other))
        if len(first) != len(second):
            return None
        found = [compared(benchmark, *pair) for pair in zip(first, second, strict=True)]
        return [c for c in found if c is not None] if found and None not in found else None

    @cached_property
    def _differences(self) -> Mapping[tuple[object, ...], Difference]:
        return {_key(d.measurement): d for d in reversed(self.run.differences)}

    def chance(self, model: str, benchmark: str) -> float:
        """The primary figure of guessing; 0 where guessing has none."""
        figure, known = self.figure(model, benchmark), registered(benchmark)
        measured = figure.details.get("chance") if figure is not None else None
        if isinstance(measured, float):
            return measured
        declared = known.chance if known is not None else None
        return CHANCE.get(benchmark, 0.0) if declared is None else declared

    def has_skill(self, model: str, benchmark: str) -> bool:
        """Whether the dense model is above chance at all: else there is nothing to lose."""
        figure = self.figure(model, benchmark)
        if figure is None:
            return False
        return figure.value - Z * (figure.standard_error or 0.0) > self.chance(model, benchmark)

    def loss(self, cut: MeasuredCut, benchmark: str) -> Effect | None:
        """The share of the dense model's figure above chance that the cut lost, by the study's paired test.

        The dense figure in the denominator is taken as known. None where nothing was compared, or where the dense model
        is at chance itself.
        """
        found = self.difference(cut, benchmark)
        if found is None or not self.has_skill(cut.model, benchmark):
            return None
        c = found.comparison
        keys = {**keys_of(cut), "benchmark": benchmark, "dense": c.dense, "pruned": c.pruned}
        skill = c.dense - self.chance(cut.model, benchmark)
        return trial_of(keys, c).reversed().scaled(1 / skill) if skill > 0 else None

    def losses(self, cuts: Iterable[MeasuredCut], benchmarks: Iterable[str]) -> list[Effect]:
        """Every lost share that there is."""
        names = list(benchmarks)
        found = (self.loss(cut, name) for cut in cuts for name in names)
        return [one for one in found if one is not None]

    def compare_cuts(self, pair: CutPair, benchmark: str) -> Effect | None:
        """The first cut's figure minus the second's, tested on the same samples; several claims ask for the same."""
        if (pair, benchmark) not in self._versus:
            self._versus[pair, benchmark] = self._tested(pair, benchmark)
        return self._versus[pair, benchmark]

    def _tested(self, pair: CutPair, benchmark: str) -> Effect | None:
        tests = self.between(pair.first, pair.second, benchmark)
        if tests is None:
            return None
        found = over_seeds(tests)
        figures = {pair.first.strategy: found.dense, pair.second.strategy: found.pruned}
        return trial_of({**pair.keys, "benchmark": benchmark, **figures}, found).reversed()

    def pairwise(self, pairs: Iterable[CutPair], benchmarks: Iterable[str]) -> list[Effect]:
        """Every comparison of two cuts that there is; positive where the first is better."""
        names = list(benchmarks)
        found = ((name, self.compare_cuts(pair, name)) for pair in pairs for name in names)
        return [one if higher_is_better(name) else one.reversed() for name, one in found if one is not None]


def over_seeds(tests: Sequence[Comparison]) -> Comparison:
    """Tests of several seeds as one of their means.

    The seeds share their samples, so that their errors are taken as going together: the interval has the mean width,
    and a change was seen where every seed sees it on the same side.
    """
    if len(tests) == 1:
        return tests[0]
    same = len({one.difference > 0 for one in tests}) == 1
    adjusted = [one.p_adjusted for one in tests if one.p_adjusted is not None]
    return Comparison(
        dense=fmean(one.dense for one in tests),
        pruned=fmean(one.pruned for one in tests),
        difference=fmean(one.difference for one in tests),
        interval=(fmean(one.interval[0] for one in tests), fmean(one.interval[1] for one in tests)),
        p=max(one.p for one in tests) if same else 1.0,
        n=tests[0].n,
        test=f"{tests[0].test}, {len(tests)} seeds",
        p_adjusted=(max(adjusted) if same else 1.0) if adjusted else None,
    )


def _mean_figure(found: Sequence[Measurement]) -> Measurement | None:
    """One seed's figure as it is; of several the mean, with no standard error, since the seeds share their samples."""
    if len(found) < 2:
        return next(iter(found), None)
    means = {name: fmean(getattr(m, name) for m in found) for name in ("value", "achieved_ratio")}
    return found[0].model_copy(update={**means, "standard_error": None, "seed": None, "plan": None})


def compared(benchmark: str, one: Measured | None, other: Measured | None) -> Comparison | None:
    """The benchmark's paired test of two cuts; None where records are missing or are of different samples."""
    first, second = (None if each is None else each.samples for each in (one, other))
    if first is None or second is None:
        return None
    try:
        known = registered(benchmark)
        return _by_correct(first, second) if known is None else known.compare(first, second)
    except (InvalidRequest, NonFiniteValue):
        return None


def _by_correct(first: pd.DataFrame, second: pd.DataFrame) -> Comparison | None:
    """The test of a benchmark that is not registered: right against wrong, or means where answers are right in part."""
    if "correct" not in first or "correct" not in second:
        return None
    one, other = (table.set_index("sample")["correct"].astype(float) for table in (first, second))
    if one.isin([0, 1]).all() and other.isin([0, 1]).all():
        return paired_accuracy(one, other)
    return paired_bootstrap(one, other, mean, seed=0)


def registered(benchmark: str) -> Benchmark | None:
    """The benchmark; None for a name that is in a run and not known here."""
    try:
        return find_benchmark(benchmark)
    except UnknownName:
        return None


def higher_is_better(benchmark: str) -> bool:
    """Of the primary figure."""
    known = registered(benchmark)
    return known is None or known.higher_is_better


def keys_of(cut: MeasuredCut) -> dict[str, str | float]:
    """What names a cut in evidence."""
    return {"model": cut.model, "ratio": cut.achieved_ratio, "strategy": cut.strategy}


def _key(m: Measurement) -> tuple[object, ...]:
    return m.model, m.method, m.ratio, m.seed, m.benchmark, m.shots
