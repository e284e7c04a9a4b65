"""Lookup of a run's cuts, their benchmarks, and comparisons on the same samples."""

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
"""Largest difference of achieved ratios that counts as matched: a key-value group cannot be split."""
ABOUT_TEN = (0.05, 0.15)
"""Achieved ratios that count as 10 %: depth pruning removes entire blocks."""
HIGH = 0.25
"""Smallest achieved ratio that counts as high."""
CHANCE = {"pope": 0.5}
"""Chance levels of benchmarks that may be in a run without being registered."""


@dataclass(frozen=True)
class MeasuredCut:
    """A pruned model of the run."""

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
    """Two cuts of one model at matched size."""

    first: MeasuredCut
    second: MeasuredCut

    @property
    def achieved_ratio(self) -> float:
        """The first cut's achieved ratio."""
        return self.first.achieved_ratio

    @property
    def keys(self) -> dict[str, str | float]:
        """The pair's identifying columns in evidence rows."""
        return {"model": self.first.model, "ratio": self.achieved_ratio}


class Evidence:
    """Index of a run by model, cut and benchmark.

    For a cut with several seeds, results and comparisons are means over the seeds, and sample records are those of the
    lowest seed. For a benchmark measured with several numbers of shots, one number is used for a model and all its
    cuts, see `shots`.

    Args:
        run: the run.
        judged: the methods to consider.
    """

    def __init__(self, run: Run, judged: Iterable[str] = PAPER_METHODS) -> None:
        self.run = run
        self.judged = tuple(judged)
        self._versus: dict[tuple[CutPair, str], Effect | None] = {}

    @cached_property
    def models(self) -> list[str]:
        """Names of the dense models."""
        return list(dict.fromkeys(m.model for m in self.run.measurements))

    @cached_property
    def _cuts(self) -> list[MeasuredCut]:
        ratios_by_cut: dict[tuple[str, str, float], dict[int | None, float]] = {}
        for m in sorted(self.run.measurements, key=lambda m: m.seed or 0):
            if m.method in self.judged:
                ratios_by_cut.setdefault((m.model, m.method, m.ratio), {}).setdefault(m.seed, m.achieved_ratio)
        cuts = [MeasuredCut(*key, fmean(seeds.values()), next(iter(seeds))) for key, seeds in ratios_by_cut.items()]
        return sorted(cuts, key=lambda cut: cut.achieved_ratio)

    def cuts(
        self, strategy: str | None = None, model: str | None = None, low: float = 0.0, high: float = 1.0
    ) -> list[MeasuredCut]:
        """The cuts with `low <= achieved ratio < high`, in ascending order."""
        return [
            cut
            for cut in self._cuts
            if strategy in (None, cut.strategy) and model in (None, cut.model) and low <= cut.achieved_ratio < high
        ]

    def pairs(
        self, first: str = "depth", second: str = "width", model: str | None = None, low: float = 0.0, high: float = 1.0
    ) -> list[CutPair]:
        """Pairs of cuts of two strategies with the same model and requested ratio and matching achieved ratios."""
        return [
            CutPair(first_cut, second_cut)
            for first_cut in self.cuts(first, model, low, high)
            for second_cut in self.cuts(second, first_cut.model)
            if second_cut.ratio == first_cut.ratio
            and abs(second_cut.achieved_ratio - first_cut.achieved_ratio) <= MATCHED
        ]

    @cached_property
    def _measured(self) -> Mapping[tuple[str, str, float, str], dict[int | None, dict[int | None, Measured]]]:
        """Measurements by (model, method, ratio, benchmark), then by shots and seed."""
        by_cell: dict[tuple[str, str, float, str], dict[int | None, dict[int | None, Measured]]] = {}
        for measured in self.run.measured:
            m = next((m for m in measured.measurements if m.primary), None)
            if m is not None:
                by_shots = by_cell.setdefault((m.model, m.method, m.ratio, m.benchmark), {})
                by_shots.setdefault(m.shots, {})[None if m.method == "dense" else m.seed] = measured
        return by_cell

    def _of(self, of: MeasuredCut | str, benchmark: str) -> dict[int | None, dict[int | None, Measured]]:
        cut = (of, "dense", 0.0) if isinstance(of, str) else (of.model, of.method, of.ratio)
        return self._measured.get((*cut, benchmark), {})

    def by_shots(self, of: MeasuredCut | str, benchmark: str) -> Mapping[int | None, Measured]:
        """A benchmark's measurements of a cut, or of a dense model given by name, by number of shots."""
        seed = None if isinstance(of, str) else of.seed
        return {shots: seeds[seed] for shots, seeds in self._of(of, benchmark).items() if seed in seeds}

    def shots_measured(self, model: str, benchmark: str) -> list[int | None]:
        """The dense model's numbers of shots; those of its cuts if the dense model was not measured."""
        dense = self._of(model, benchmark)
        cuts = (
            shots
            for key, by_shots in self._measured.items()
            if (key[0], key[3]) == (model, benchmark)
            for shots in by_shots
        )
        return sorted(dense or dict.fromkeys(cuts), key=lambda shots: shots or 0)

    def shots(self, model: str, benchmark: str) -> int | None:
        """The number of shots used for a model and all its cuts: the benchmark's default, or else the smallest."""
        measured_shots, known = self.shots_measured(model, benchmark), registered(benchmark)
        default = known.shots if known is not None else None
        return default if default in measured_shots or not measured_shots else measured_shots[0]

    def by_seed(self, of: MeasuredCut | str, benchmark: str) -> Mapping[int | None, Measured]:
        """A benchmark's measurements of a cut, or of a dense model given by name, by ascending seed."""
        by_seed = self._of(of, benchmark).get(self.shots(of if isinstance(of, str) else of.model, benchmark), {})
        return dict(sorted(by_seed.items(), key=lambda item: item[0] or 0))

    def measured(self, of: MeasuredCut | str, benchmark: str) -> Measured | None:
        """A benchmark's measurement of a cut's lowest seed, or of a dense model given by name."""
        return next(iter(self.by_seed(of, benchmark).values()), None)

    def figure(self, of: MeasuredCut | str, benchmark: str, metric: str | None = None) -> Measurement | None:
        """The benchmark's primary metric, or the given metric, over all groups; the mean over several seeds."""
        figures = [
            next(
                (
                    m
                    for m in measured.measurements
                    if (m.primary if metric is None else m.metric == metric and not m.group)
                ),
                None,
            )
            for measured in self.by_seed(of, benchmark).values()
        ]
        return _mean_figure([m for m in figures if m is not None])

    def difference(self, cut: MeasuredCut, benchmark: str) -> Difference | None:
        """The study's paired test against the dense model, adjusted over the cut's benchmarks."""
        differences = [self._differences.get(_key(item.primary)) for item in self.by_seed(cut, benchmark).values()]
        figure, tests = self.figure(cut, benchmark), [item.comparison for item in differences if item is not None]
        if figure is None or not tests or len(tests) < len(differences):
            return None
        return Difference(figure, higher_is_better(benchmark), over_seeds(tests))

    def between(self, first_cut: MeasuredCut, second_cut: MeasuredCut, benchmark: str) -> list[Comparison] | None:
        """The benchmark's paired tests of two cuts, one per seed; None if either lacks seeds or sample records."""
        first, second = (self.by_seed(cut, benchmark).values() for cut in (first_cut, second_cut))
        if len(first) != len(second):
            return None
        comparisons = [compared(benchmark, *pair) for pair in zip(first, second, strict=True)]
        return [c for c in comparisons if c is not None] if comparisons and None not in comparisons else None

    @cached_property
    def _differences(self) -> Mapping[tuple[object, ...], Difference]:
        return {_key(d.measurement): d for d in reversed(self.run.differences)}

    def chance(self, model: str, benchmark: str) -> float:
        """The primary metric's value at chance; 0 if the benchmark has no chance level."""
        figure, known = self.figure(model, benchmark), registered(benchmark)
        measured = figure.details.get("chance") if figure is not None else None
        if isinstance(measured, float):
            return measured
        declared = known.chance if known is not None else None
        return CHANCE.get(benchmark, 0.0) if declared is None else declared

    def has_skill(self, model: str, benchmark: str) -> bool:
        """Whether the dense model is significantly above chance."""
        figure = self.figure(model, benchmark)
        if figure is None:
            return False
        return figure.value - Z * (figure.standard_error or 0.0) > self.chance(model, benchmark)

    def loss(self, cut: MeasuredCut, benchmark: str) -> Effect | None:
        """The lost share of the dense model's margin over chance, from the study's paired test.

        The dense result in the denominator is treated as exact. None if there is no comparison, or if the dense model
        is at chance.
        """
        difference = self.difference(cut, benchmark)
        if difference is None or not self.has_skill(cut.model, benchmark):
            return None
        c = difference.comparison
        keys = {**keys_of(cut), "benchmark": benchmark, "dense": c.dense, "pruned": c.pruned}
        skill = c.dense - self.chance(cut.model, benchmark)
        return trial_of(keys, c).reversed().scaled(1 / skill) if skill > 0 else None

    def losses(self, cuts: Iterable[MeasuredCut], benchmarks: Iterable[str]) -> list[Effect]:
        """All lost shares that are defined."""
        names = list(benchmarks)
        losses = (self.loss(cut, name) for cut in cuts for name in names)
        return [loss for loss in losses if loss is not None]

    def compare_cuts(self, pair: CutPair, benchmark: str) -> Effect | None:
        """The first cut's result minus the second's, tested on the same samples; cached, since claims share it."""
        if (pair, benchmark) not in self._versus:
            self._versus[pair, benchmark] = self._tested(pair, benchmark)
        return self._versus[pair, benchmark]

    def _tested(self, pair: CutPair, benchmark: str) -> Effect | None:
        tests = self.between(pair.first, pair.second, benchmark)
        if tests is None:
            return None
        comparison = over_seeds(tests)
        figures = {pair.first.strategy: comparison.dense, pair.second.strategy: comparison.pruned}
        return trial_of({**pair.keys, "benchmark": benchmark, **figures}, comparison).reversed()

    def pairwise(self, pairs: Iterable[CutPair], benchmarks: Iterable[str]) -> list[Effect]:
        """All comparisons that are defined, signed so that a positive effect favours the first cut."""
        names = list(benchmarks)
        effects = ((name, self.compare_cuts(pair, name)) for pair in pairs for name in names)
        return [
            effect if higher_is_better(name) else effect.reversed() for name, effect in effects if effect is not None
        ]


def over_seeds(tests: Sequence[Comparison]) -> Comparison:
    """Combine the tests of several seeds into one test of their means.

    The seeds share their samples, so their errors are treated as fully correlated: the interval has the mean width, and
    the combined test is significant only if all seeds are significant in the same direction.
    """
    if len(tests) == 1:
        return tests[0]
    same = len({comparison.difference > 0 for comparison in tests}) == 1
    adjusted = [comparison.p_adjusted for comparison in tests if comparison.p_adjusted is not None]
    return Comparison(
        dense=fmean(comparison.dense for comparison in tests),
        pruned=fmean(comparison.pruned for comparison in tests),
        difference=fmean(comparison.difference for comparison in tests),
        interval=(
            fmean(comparison.interval[0] for comparison in tests),
            fmean(comparison.interval[1] for comparison in tests),
        ),
        p=max(comparison.p for comparison in tests) if same else 1.0,
        n=tests[0].n,
        test=f"{tests[0].test}, {len(tests)} seeds",
        p_adjusted=(max(adjusted) if same else 1.0) if adjusted else None,
    )


def _mean_figure(figures: Sequence[Measurement]) -> Measurement | None:
    """One seed's result unchanged; the mean of several, without a standard error, since seeds share their samples."""
    if len(figures) < 2:
        return next(iter(figures), None)
    means = {name: fmean(getattr(m, name) for m in figures) for name in ("value", "achieved_ratio")}
    return figures[0].model_copy(update={**means, "standard_error": None, "seed": None, "plan": None})


def compared(benchmark: str, first_cut: Measured | None, second_cut: Measured | None) -> Comparison | None:
    """The benchmark's paired test of two cuts; None if records are missing or cover different samples."""
    first, second = (None if each is None else each.samples for each in (first_cut, second_cut))
    if first is None or second is None:
        return None
    try:
        known = registered(benchmark)
        return _by_correct(first, second) if known is None else known.compare(first, second)
    except (InvalidRequest, NonFiniteValue):
        return None


def _by_correct(first: pd.DataFrame, second: pd.DataFrame) -> Comparison | None:
    """The test for an unregistered benchmark: McNemar for binary correctness, else a bootstrap of the means."""
    if "correct" not in first or "correct" not in second:
        return None
    first_correct, second_correct = (table.set_index("sample")["correct"].astype(float) for table in (first, second))
    if first_correct.isin([0, 1]).all() and second_correct.isin([0, 1]).all():
        return paired_accuracy(first_correct, second_correct)
    return paired_bootstrap(first_correct, second_correct, mean, seed=0)


def registered(benchmark: str) -> Benchmark | None:
    """The registered benchmark; None for an unknown name."""
    try:
        return find_benchmark(benchmark)
    except UnknownName:
        return None


def higher_is_better(benchmark: str) -> bool:
    """Whether higher values of the primary metric are better."""
    known = registered(benchmark)
    return known is None or known.higher_is_better


def keys_of(cut: MeasuredCut) -> dict[str, str | float]:
    """A cut's identifying columns in evidence rows."""
    return {"model": cut.model, "ratio": cut.achieved_ratio, "strategy": cut.strategy}


def _key(m: Measurement) -> tuple[object, ...]:
    return m.model, m.method, m.ratio, m.seed, m.benchmark, m.shots
