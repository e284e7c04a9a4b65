"""Live view of a study on a terminal, with one line per cell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from prunelab.errors import first_line
from prunelab.io.terminal import plain
from prunelab.studies.progress import Pace, figure, title

if TYPE_CHECKING:
    from prunelab.evaluation.runner import BenchmarkTask as BenchmarkRun
    from prunelab.studies.grid import GridCell
    from prunelab.studies.store import Measurement

State = Literal["waiting", "running", "done", "failed"]
STYLES: dict[State, str] = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red"}


@dataclass
class _Line:
    """The line of one cell."""

    cell: GridCell
    state: State = "waiting"
    figures: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    running: BenchmarkRun | None = None
    share: float = 0.0
    error: str = ""

    @property
    def doing(self) -> str:
        """Label of the state, with the running benchmark."""
        if self.state == "running" and self.running is not None:
            return f"{title(self.running)} {self.share:.0%}"
        return self.state

    def waiting(self) -> list[tuple[GridCell, BenchmarkRun, float]]:
        """The remaining benchmarks, each with its remaining share."""
        if self.state in ("done", "failed"):
            return []
        left = [run for run in self.cell.runs if title(run) not in self.ended]
        return [(self.cell, run, 1 - self.share if run == self.running else 1.0) for run in left]


class LiveView:
    """One line per cell with its state, the progress of its benchmark, and its figures.

    If the terminal is too small for all cells, running and failed ones are shown first, then the latest finished and
    the next waiting ones.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.pace = Pace()
        self.lines: dict[str, _Line] = {}
        self._live: Live | None = None
        self._show_warning: Any = None

    def begin(self, cells: Sequence[GridCell]) -> None:
        """Start drawing; warnings are printed above the table."""
        self.lines = {cell.label: _Line(cell) for cell in cells}
        self._live = Live(console=self.console, get_renderable=self.table, refresh_per_second=4)
        self._show_warning, warnings.showwarning = warnings.showwarning, self._warn
        self._live.start()

    def note(self, line: str) -> None:
        """Print a line above the table."""
        self.console.print(plain(line))

    def cell_started(self, cell: GridCell) -> None:
        """Mark the cell as running."""
        self.lines[cell.label].state = "running"

    def benchmark_progress(self, cell: GridCell, run: BenchmarkRun, done: int, total: int) -> None:
        """Update the progress of the cell's benchmark."""
        line = self.lines[cell.label]
        line.running, line.share = run, done / max(total, 1)

    def benchmark_done(
        self, cell: GridCell, run: BenchmarkRun, label: str, measurements: Sequence[Measurement], kept: bool
    ) -> None:
        """Add the figure to the cell's line, and its duration to the estimate of the remaining time."""
        line = self.lines[cell.label]
        line.figures[title(run)] = figure(measurements)
        line.ended.add(title(run))
        line.running, line.share = None, 0.0
        if measurements[0].seconds:
            self.pace.add(cell, run, measurements[0].seconds)

    def failed(self, cells: Sequence[GridCell], run: BenchmarkRun | None, what: str, error: BaseException) -> None:
        """Show the error on the lines of the cells."""
        for cell in cells:
            line = self.lines[cell.label]
            line.error = first_line(error)
            line.running, line.share = None, 0.0
            if run is None:
                line.state = "failed"
            else:
                line.ended.add(title(run))

    def cell_done(self, cell: GridCell) -> None:
        """Mark the cell as done, or as failed if any benchmark failed."""
        line = self.lines[cell.label]
        line.state = "failed" if line.error else "done"

    def end(self) -> None:
        """Draw the final state and stop."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            warnings.showwarning = self._show_warning

    def table(self) -> RenderableType:
        """The current table."""
        shown = _fitting(list(self.lines.values()), max(3, self.console.height - 4))
        table = Table(box=None, padding=(0, 1), header_style="bold")
        table.add_column("cell", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("figures")
        for line in shown:
            text = line.error or ", ".join(f"{name} {value}" for name, value in list(line.figures.items()))
            figures = plain(text, STYLES["failed"] if line.error else "", no_wrap=True, overflow="ellipsis")
            table.add_row(plain(line.cell.label), plain(line.doing, STYLES[line.state]), figures)
        return Group(table, plain(self.summary(len(self.lines) - len(shown)), "bold"))

    def summary(self, hidden: int = 0) -> str:
        """Numbers of finished and failed cells, and the remaining time."""
        lines = list(self.lines.values())
        ended = sum(line.state in ("done", "failed") for line in lines)
        failed = sum(line.state == "failed" for line in lines)
        left = self.pace.left([remaining for line in lines for remaining in line.waiting()])
        parts = [f"{ended} of {len(lines)} cells", f"{failed} failed" if failed else "", str(left)]
        return ", ".join(part for part in parts if part) + (f" ({hidden} cells not shown)" if hidden else "")

    def _warn(self, message: Any, category: Any, *rest: Any, **more: Any) -> None:
        if category is UserWarning:
            self.note(f"warning: {message}")


def _fitting(lines: list[_Line], height: int) -> list[_Line]:
    """Choose the lines that fit in `height` rows, in the order of the grid."""
    if len(lines) <= height:
        return lines
    done = [line for line in reversed(lines) if line.state == "done"]
    waiting = [line for line in lines if line.state == "waiting"]
    urgent = [line for line in lines if line.state in ("running", "failed")]
    half = max(0, height - len(urgent)) // 2
    chosen = [*urgent, *done[:half], *waiting, *done[half:]][:height]
    return [line for line in lines if any(line is other for other in chosen)]
