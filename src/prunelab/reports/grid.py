"""A run, arranged as the report needs it: cuts down, benchmarks across."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from prunelab.analysis.recommend import Need, Recommendation, recommend
from prunelab.errors import InvalidRequest
from prunelab.reports.columns import Column, is_baseline, strategy_of

if TYPE_CHECKING:
    from prunelab.pruning.plan_summary import PlannedCut
    from prunelab.studies.comparison import Difference
    from prunelab.studies.run import Run
    from prunelab.studies.store import Measurement

ORDER = ("dense", "depth", "width", "hybrid", "other")


@dataclass(frozen=True)
class ReportCut:
    """A model cut one way; cells that differ by their seed alone are one cut."""

    model: str
    method: str
    ratio: float

    @property
    def strategy(self) -> str:
        """What it removes."""
        return strategy_of(self.method)

    @property
    def is_dense(self) -> bool:
        """Whether nothing was removed."""
        return self.method == "dense"

    @property
    def is_baseline(self) -> bool:
        """Whether it is only there for comparison."""
        return is_baseline(self.method)

    @property
    def label(self) -> str:
        """What people read."""
        return "dense" if self.is_dense else f"{self.method} {self.ratio:.0%}"


@dataclass(frozen=True)
class Entry:
    """One cut's figure of one benchmark.

    Attributes:
        measurements: one a seed.
        differences: each against the dense model, where there are sample records.
    """

    measurements: tuple[Measurement, ...]
    differences: tuple[Difference, ...] = ()

    @cached_property
    def value(self) -> float:
        """The mean over seeds."""
        return fmean(m.value for m in self.measurements)

    @cached_property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds; None for a single one."""
        return stdev(m.value for m in self.measurements) if len(self.measurements) > 1 else None

    @property
    def error(self) -> float | None:
        """What an error bar shows: the spread over seeds, for a single one the standard error over samples."""
        return self.spread if len(self.measurements) > 1 else self.measurements[0].standard_error

    @property
    def achieved(self) -> float:
        """The removed share."""
        return fmean(m.achieved_ratio for m in self.measurements)

    @property
    def is_seen(self) -> bool:
        """Whether a change from the dense model was seen, for a single seed."""
        return len(self.measurements) == 1 and any(d.comparison.significant for d in self.differences)


@dataclass(frozen=True, eq=False)
class Grid:
    """Every primary figure by cut and column; a grid equals itself alone.

    Attributes:
        models: in the order of the study.
        cuts: in the order of the study, the dense models among them.
        columns: in the order of the study.
    """

    models: tuple[str, ...]
    cuts: tuple[ReportCut, ...]
    columns: tuple[Column, ...]
    _entries: dict[tuple[ReportCut, Column], Entry] = field(repr=False)

    def entry(self, cut: ReportCut, column: Column) -> Entry | None:
        """One figure; None where it was not measured."""
        return self._entries.get((cut, column))

    def dense(self, model: str, column: Column) -> Entry | None:
        """The dense model's figure."""
        return self.entry(ReportCut(model, "dense", 0.0), column)

    def of_model(self, model: str, dense: bool = True) -> list[ReportCut]:
        """A model's cuts, sorted for reading."""
        return [cut for cut in self.sorted_cuts if cut.model == model and (dense or not cut.is_dense)]

    def columns_of(self, model: str) -> list[Column]:
        """What was measured of a model."""
        return [c for c in self.columns if any(self.entry(cut, c) for cut in self.of_model(model))]

    @cached_property
    def sorted_cuts(self) -> list[ReportCut]:
        """By model, ratio and strategy: depth, width and hybrid of one ratio together, baselines behind them."""
        return sorted(
            self.cuts,
            key=lambda c: (self.models.index(c.model), c.ratio, ORDER.index(c.strategy) if not c.is_baseline else 9),
        )

    def achieved(self, cut: ReportCut) -> float:
        """The removed share, the mean over seeds."""
        found = {m.seed: m.achieved_ratio for m in self._of(cut)}
        return fmean(found.values())

    def seeds(self, cut: ReportCut) -> int:
        """How many seeds there are."""
        return len({m.seed for m in self._of(cut)})

    def chance(self, model: str, column: Column) -> float | None:
        """What guessing earns on this run's questions."""
        dense = self.dense(model, column)
        measured = dense.measurements[0].details.get("chance") if dense else None
        return float(measured) if isinstance(measured, int | float) and column.chance is not None else column.chance

    def _of(self, cut: ReportCut) -> list[Measurement]:
        found = (self.entry(cut, column) for column in self.columns)
        return [m for entry in found if entry for m in entry.measurements]


def report_grid(measurements: Sequence[Measurement], differences: Sequence[Difference] = ()) -> Grid:
    """Arrange what a run found."""
    primary = [m for m in measurements if m.primary]
    by_entry: dict[tuple[ReportCut, Column], list[Measurement]] = defaultdict(list)
    changed: dict[tuple[ReportCut, Column], list[Difference]] = defaultdict(list)
    for m in primary:
        by_entry[ReportCut(m.model, m.method, m.ratio), Column.of(m)].append(m)
    for d in differences:
        m = d.measurement
        changed[ReportCut(m.model, m.method, m.ratio), Column.of(m)].append(d)
    entries = {key: Entry(tuple(own), tuple(changed[key])) for key, own in by_entry.items()}
    return Grid(
        models=tuple(dict.fromkeys(m.model for m in primary)),
        cuts=tuple(dict.fromkeys(cut for cut, _ in by_entry)),
        columns=tuple(dict.fromkeys(column for _, column in by_entry)),
        _entries=entries,
    )


@dataclass(frozen=True)
class Study:
    """A run and its grid: what every section is made from."""

    run: Run
    grid: Grid

    @classmethod
    def of(cls, run: Run) -> Study:
        """Arrange a run."""
        return cls(run, report_grid(run.measurements, run.differences))

    def figures_of(self, cut: ReportCut, benchmark: str) -> Sequence[Measurement]:
        """All that a benchmark says of a cut, under every seed and of every group."""
        return self._figures.get((cut, benchmark), ())

    @cached_property
    def _figures(self) -> Mapping[tuple[ReportCut, str], Sequence[Measurement]]:
        found: dict[tuple[ReportCut, str], list[Measurement]] = defaultdict(list)
        for m in self.run.measurements:
            found[ReportCut(m.model, m.method, m.ratio), m.benchmark].append(m)
        return found

    @cached_property
    def recommendations(self) -> Mapping[str, Recommendation]:
        """For every model that was cut the answer to the usual need, where there is one; see `Study.unadvised`."""
        return {model: found for model, found in self._advice.items() if isinstance(found, Recommendation)}

    @cached_property
    def unadvised(self) -> Mapping[str, str]:
        """Why there is no recommendation, by model."""
        return {model: found for model, found in self._advice.items() if isinstance(found, str)}

    @cached_property
    def _advice(self) -> Mapping[str, Recommendation | str]:
        found: dict[str, Recommendation | str] = {}
        for model in self.grid.models:
            if self.grid.of_model(model, dense=False):
                try:
                    found[model] = recommend(self.run, Need(model=model))
                except InvalidRequest as error:
                    found[model] = str(error)
        return found

    @property
    def plans(self) -> Mapping[str, PlannedCut]:
        """The plans of the cells, by fingerprint."""
        return self.run.planned
