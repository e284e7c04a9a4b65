"""Progress of a study: the view protocol, a plain-text view, and estimates of the remaining time."""

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
    """Displays a running study, which calls these methods in this order."""

    def begin(self, cells: Sequence[GridCell]) -> None:
        """The study starts with these cells; nothing is loaded yet."""

    def note(self, line: str) -> None:
        """A message, such as that a model is being calibrated."""

    def cell_started(self, cell: GridCell) -> None:
        """A cell starts."""

    def benchmark_progress(self, cell: GridCell, run: BenchmarkRun, done: int, total: int) -> None:
        """A benchmark of the cell progresses; the first call has 0 done."""

    def benchmark_done(
        self, cell: GridCell, run: BenchmarkRun, label: str, measurements: Sequence[Measurement], kept: bool
    ) -> None:
        """A benchmark is finished; `kept` if the result existed before; `label` names the cell with its size."""

    def failed(self, cells: Sequence[GridCell], run: BenchmarkRun | None, what: str, error: BaseException) -> None:
        """Cells failed, or one benchmark of a cell; `what` names it."""

    def cell_done(self, cell: GridCell) -> None:
        """The cell is finished."""

    def end(self) -> None:
        """The study is finished."""


def figure(measurements: Sequence[Measurement]) -> str:
    """Format the primary figure of a benchmark."""
    primary = next(m for m in measurements if m.primary)
    ideal = next((f", {m.value:.0%} of the ideal" for m in measurements if m.metric == "share_of_ideal"), "")
    return f"{primary.metric} {primary.value:.4g}{ideal}"


def title(run: BenchmarkRun) -> str:
    """Format a benchmark and its number of few-shot examples."""
    benchmark, settings = run
    return benchmark.name if settings.shots is None else f"{benchmark.name} {settings.shots}-shot"


class PlainView:
    """Prints one line per event.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Say = print) -> None:
        self.say: Say = lambda line: say(one_line(line))

    def begin(self, cells: Sequence[GridCell]) -> None:
        """Prints nothing."""

    def note(self, line: str) -> None:
        """Print the line."""
        self.say(line)

    def cell_started(self, cell: GridCell) -> None:
        """Prints nothing."""

    def benchmark_progress(self, cell: GridCell, run: BenchmarkRun, done: int, total: int) -> None:
        """Prints nothing, to keep the log short."""

    def benchmark_done(
        self, cell: GridCell, run: BenchmarkRun, label: str, measurements: Sequence[Measurement], kept: bool
    ) -> None:
        """Print the figure, unless it existed before."""
        if not kept:
            m = measurements[0]
            shots = "" if m.shots is None else f" {m.shots}-shot"
            self.say(f"{label}: {m.benchmark}{shots} {figure(measurements)} ({m.seconds or 0:.1f} s)")

    def failed(self, cells: Sequence[GridCell], run: BenchmarkRun | None, what: str, error: BaseException) -> None:
        """Print what failed, and why."""
        self.say(f"{what}: failed: {error}")

    def cell_done(self, cell: GridCell) -> None:
        """Prints nothing."""

    def end(self) -> None:
        """Prints nothing."""


@dataclass(frozen=True)
class TimeLeft:
    """An estimate of the remaining time.

    Attributes:
        seconds: remaining time of benchmarks whose duration is known.
        whole: whether that includes all remaining benchmarks; otherwise it is a lower bound.
    """

    seconds: float
    whole: bool

    def __str__(self) -> str:
        if not self.seconds:
            return "no time left" if self.whole else "time left unknown"
        minutes = self.seconds / 60
        if minutes < 2:
            amount = f"{self.seconds:.0f} s"
        else:
            amount = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        return f"{'about' if self.whole else 'more than'} {amount} left"


@dataclass
class Pace:
    """Durations of finished benchmarks, to estimate those of the others."""

    _seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, cell: GridCell, run: BenchmarkRun, seconds: float) -> None:
        """Record the duration of a benchmark of a cell."""
        self._seconds.setdefault((cell.model, title(run)), []).append(seconds)

    def of(self, cell: GridCell, run: BenchmarkRun) -> float | None:
        """Mean duration of a benchmark with this model, otherwise with any model; None if unknown."""
        durations = self._seconds.get((cell.model, title(run)))
        if durations is None:
            durations = [s for (_, name), seconds in list(self._seconds.items()) if name == title(run) for s in seconds]
        return mean(durations) if durations else None

    def left(self, waiting: Sequence[tuple[GridCell, BenchmarkRun, float]]) -> TimeLeft:
        """Estimate the remaining time of benchmarks, each with its remaining share."""
        known = [(self.of(cell, run), share) for cell, run, share in waiting]
        return TimeLeft(sum(s * share for s, share in known if s is not None), all(s is not None for s, _ in known))
