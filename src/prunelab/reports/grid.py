"""A run's results arranged for the report: pruned models in rows, benchmarks in columns."""

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
    """A model pruned by one method at one ratio; cells that differ only in their seed belong to the same cut."""

    model: str
    method: str
    ratio: float

    @property
    def strategy(self) -> str:
        """The method's strategy: `depth`, `width`, `hybrid`, `dense` or `other`."""
        return strategy_of(self.method)

    @property
    def is_dense(self) -> bool:
        """Whether this is the dense model."""
        return self.method == "dense"

    @property
    def is_baseline(self) -> bool:
        """Whether the method is a baseline."""
        return is_baseline(self.method)

    @property
    def label(self) -> str:
        """Method and ratio as displayed."""
        return "dense" if self.is_dense else f"{self.method} {self.ratio:.0%}"


@dataclass(frozen=True)
class Entry:
    """One cut's result on one benchmark.

    Attributes:
        measurements: one measurement per seed.
        differences: the paired comparisons with the dense model, for seeds with sample records.
    """

    measurements: tuple[Measurement, ...]
    differences: tuple[Difference, ...] = ()

    @cached_property
    def value(self) -> float:
        """The mean over seeds."""
        return fmean(m.value for m in self.measurements)

    @cached_property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds; None for a single seed."""
        return stdev(m.value for m in self.measurements) if len(self.measurements) > 1 else None

    @property
    def error(self) -> float | None:
        """Half the length of the error bar: the standard deviation over seeds, or one seed's standard error."""
        return self.spread if len(self.measurements) > 1 else self.measurements[0].standard_error

    @property
    def achieved(self) -> float:
        """The achieved pruning ratio."""
        return fmean(m.achieved_ratio for m in self.measurements)

    @property
    def is_seen(self) -> bool:
        """Whether the change from the dense model is significant; False for a cut with several seeds."""
        return len(self.measurements) == 1 and any(d.comparison.significant for d in self.differences)


@dataclass(frozen=True, eq=False)
class Grid:
    """The primary metrics by cut and column; grids compare by identity.

    Attributes:
        models: names of the models, in the study's order.
        cuts: all cuts including the dense models, in the study's order.
        columns: all columns, in the study's order.
    """

    models: tuple[str, ...]
    cuts: tuple[ReportCut, ...]
    columns: tuple[Column, ...]
    _entries: dict[tuple[ReportCut, Column], Entry] = field(repr=False)

    def entry(self, cut: ReportCut, column: Column) -> Entry | None:
        """One result; None if it was not measured."""
        return self._entries.get((cut, column))

    def dense(self, model: str, column: Column) -> Entry | None:
        """The dense model's result; None if it was not measured."""
        return self.entry(ReportCut(model, "dense", 0.0), column)

    def of_model(self, model: str, dense: bool = True) -> list[ReportCut]:
        """A model's cuts in display order."""
        return [cut for cut in self.sorted_cuts if cut.model == model and (dense or not cut.is_dense)]

    def columns_of(self, model: str) -> list[Column]:
        """The columns that were measured on a model."""
        return [c for c in self.columns if any(self.entry(cut, c) for cut in self.of_model(model))]

    @cached_property
    def sorted_cuts(self) -> list[ReportCut]:
        """All cuts by model, ratio and strategy: depth, width and hybrid of one ratio together, then the baselines."""
        return sorted(
            self.cuts,
            key=lambda c: (self.models.index(c.model), c.ratio, ORDER.index(c.strategy) if not c.is_baseline else 9),
        )

    def achieved(self, cut: ReportCut) -> float:
        """The achieved pruning ratio, averaged over seeds."""
        ratio_by_seed = {m.seed: m.achieved_ratio for m in self._of(cut)}
        return fmean(ratio_by_seed.values())

    def seeds(self, cut: ReportCut) -> int:
        """The number of seeds."""
        return len({m.seed for m in self._of(cut)})

    def chance(self, model: str, column: Column) -> float | None:
        """The metric's value at chance on this run's questions."""
        dense = self.dense(model, column)
        measured = dense.measurements[0].details.get("chance") if dense else None
        return float(measured) if isinstance(measured, int | float) and column.chance is not None else column.chance

    def _of(self, cut: ReportCut) -> list[Measurement]:
        entries = (self.entry(cut, column) for column in self.columns)
        return [m for entry in entries if entry for m in entry.measurements]


def report_grid(measurements: Sequence[Measurement], differences: Sequence[Difference] = ()) -> Grid:
    """Arrange a run's results."""
    primary = [m for m in measurements if m.primary]
    by_entry: dict[tuple[ReportCut, Column], list[Measurement]] = defaultdict(list)
    changed: dict[tuple[ReportCut, Column], list[Difference]] = defaultdict(list)
    for m in primary:
        by_entry[ReportCut(m.model, m.method, m.ratio), Column.of(m)].append(m)
    for d in differences:
        m = d.measurement
        changed[ReportCut(m.model, m.method, m.ratio), Column.of(m)].append(d)
    entries = {
        key: Entry(tuple(measurements_of_cell), tuple(changed[key])) for key, measurements_of_cell in by_entry.items()
    }
    return Grid(
        models=tuple(dict.fromkeys(m.model for m in primary)),
        cuts=tuple(dict.fromkeys(cut for cut, _ in by_entry)),
        columns=tuple(dict.fromkeys(column for _, column in by_entry)),
        _entries=entries,
    )


@dataclass(frozen=True)
class Study:
    """A run and its grid: the input of every section."""

    run: Run
    grid: Grid

    @classmethod
    def of(cls, run: Run) -> Study:
        """Arrange a run."""
        return cls(run, report_grid(run.measurements, run.differences))

    def figures_of(self, cut: ReportCut, benchmark: str) -> Sequence[Measurement]:
        """A benchmark's measurements of a cut, for all seeds and groups."""
        return self._figures.get((cut, benchmark), ())

    @cached_property
    def _figures(self) -> Mapping[tuple[ReportCut, str], Sequence[Measurement]]:
        by_cut_and_benchmark: dict[tuple[ReportCut, str], list[Measurement]] = defaultdict(list)
        for m in self.run.measurements:
            by_cut_and_benchmark[ReportCut(m.model, m.method, m.ratio), m.benchmark].append(m)
        return by_cut_and_benchmark

    @cached_property
    def recommendations(self) -> Mapping[str, Recommendation]:
        """The recommendation for the default requirement, by pruned model; see `Study.unadvised` for the others."""
        return {model: advice for model, advice in self._advice.items() if isinstance(advice, Recommendation)}

    @cached_property
    def unadvised(self) -> Mapping[str, str]:
        """The reason why there is no recommendation, by model."""
        return {model: advice for model, advice in self._advice.items() if isinstance(advice, str)}

    @cached_property
    def _advice(self) -> Mapping[str, Recommendation | str]:
        advice_by_model: dict[str, Recommendation | str] = {}
        for model in self.grid.models:
            if self.grid.of_model(model, dense=False):
                try:
                    advice_by_model[model] = recommend(self.run, Need(model=model))
                except InvalidRequest as error:
                    advice_by_model[model] = str(error)
        return advice_by_model

    @property
    def plans(self) -> Mapping[str, PlannedCut]:
        """The pruning plans of the cells, by fingerprint."""
        return self.run.planned
