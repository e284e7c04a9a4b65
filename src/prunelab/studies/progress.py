"""What a study tells about how far it is, and plain lines that say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Protocol

from prunelab.errors.text import one_line

if TYPE_CHECKING:
    from prunelab.evaluation.runner import BenchmarkTask as BenchmarkRun
    from prunelab.studies.grid import GridCell
    from prunelab.studies.store import Measurement

Say = Callable[[str], None]


class StudyView(Protocol):
    """Shows a study while it runs; the study calls, in this order, what happens."""

    def begin(self, cells: Sequence[GridCell]) -> None:
        """The whole grid, before anything is loaded."""

    def note(self, line: str) -> None:
        """Something to know, such as that a model is calibrated."""

    def cell_started(self, cell: GridCell) -> None:
        """A cell's turn has come."""

    def benchmark_progress(self, cell: GridCell, run: BenchmarkRun, done: int, total: int) -> None:
        """A benchmark of the cell is under way; the first time with 0 done."""

    def benchmark_done(
        self, cell: GridCell, run: BenchmarkRun, label: str, measurements: Sequence[Measurement], kept: bool
    ) -> None:
        """A benchmark has its figures; `kept` where an earlier run had measured them, `label` names cell and size."""

    def failed(self, cells: Sequence[GridCell], run: BenchmarkRun | None, what: str, error: BaseException) -> None:
        """Cells failed, or only a benchmark of a cell; `what` names it."""

    def cell_done(self, cell: GridCell) -> None:
        """All that could be measured of the cell is."""

    def end(self) -> None:
        """Nothing more will happen."""


def figure(measurements: Sequence[Measurement]) -> str:
    """A benchmark's primary figure in words."""
    primary = next(m for m in measurements if m.primary)
    ideal = next((f", {m.value:.0%} of the ideal" for m in measurements if m.metric == "share_of_ideal"), "")
    return f"{primary.metric} {primary.value:.4g}{ideal}"


def title(run: BenchmarkRun) -> str:
    """A benchmark and its shots."""
    benchmark, settings = run
    return benchmark.name if settings.shots is None else f"{benchmark.name} {settings.shots}-shot"


class PlainView:
    """A line for whatever is news.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Say = print) -> None:
        self.say: Say = lambda line: say(one_line(line))

    def begin(self, cells: Sequence[GridCell]) -> None:
        """Nothing: the first line is the first model's."""

    def note(self, line: str) -> None:
        """The line as it is."""
        self.say(line)

    def cell_started(self, cell: GridCell) -> None:
        """Nothing."""

    def benchmark_progress(self, cell: GridCell, run: BenchmarkRun, done: int, total: int) -> None:
        """Nothing: lines would be too many."""

    def benchmark_done(
        self, cell: GridCell, run: BenchmarkRun, label: str, measurements: Sequence[Measurement], kept: bool
    ) -> None:
        """The figure, unless it was there before."""
        if not kept:
            m = measurements[0]
            shots = "" if m.shots is None else f" {m.shots}-shot"
            self.say(f"{label}: {m.benchmark}{shots} {figure(measurements)} ({m.seconds or 0:.1f} s)")

    def failed(self, cells: Sequence[GridCell], run: BenchmarkRun | None, what: str, error: BaseException) -> None:
        """What failed, and why."""
        self.say(f"{what}: failed: {error}")

    def cell_done(self, cell: GridCell) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class TimeLeft:
    """How long the rest will take.

    Attributes:
        seconds: of the benchmarks of which one like it has been measured.
        whole: whether that is all that is left; otherwise it takes longer.
    """

    seconds: float
    whole: bool

    def __str__(self) -> str:
        if not self.seconds:
            return "no time left to wait" if self.whole else "time left not known yet"
        minutes = self.seconds / 60
        if minutes < 2:
            amount = f"{self.seconds:.0f} s"
        else:
            amount = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        return f"{'about' if self.whole else 'more than'} {amount} left"


@dataclass
class Pace:
    """What benchmarks took, to tell what the others will take."""

    _seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, cell: GridCell, run: BenchmarkRun, seconds: float) -> None:
        """A benchmark of a cell took so long."""
        self._seconds.setdefault((cell.model, title(run)), []).append(seconds)

    def of(self, cell: GridCell, run: BenchmarkRun) -> float | None:
        """What a benchmark took on average with this model, else with any; None where none was measured yet."""
        own = self._seconds.get((cell.model, title(run)))
        if own is None:
            own = [s for (_, name), seconds in list(self._seconds.items()) if name == title(run) for s in seconds]
        return mean(own) if own else None

    def left(self, waiting: Sequence[tuple[GridCell, BenchmarkRun, float]]) -> TimeLeft:
        """The time for what is left, each benchmark with the share of it that is still to do."""
        known = [(self.of(cell, run), share) for cell, run, share in waiting]
        return TimeLeft(sum(s * share for s, share in known if s is not None), all(s is not None for s, _ in known))
