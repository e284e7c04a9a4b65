"""What a study shows while it runs."""

from __future__ import annotations

import io
import warnings

import pytest
from rich.console import Console

from prunelab.cli.terminal import bar
from prunelab.errors import DataError
from prunelab.evaluation.records import Measurement
from prunelab.studies.config import study_config
from prunelab.studies.grid import GridCell, study_grid
from prunelab.studies.progress import Pace, PlainView, TimeLeft
from prunelab.studies.terminal_view import LiveView


def cells(ratios: int = 2) -> list[GridCell]:
    given = {"models": ["m"], "methods": ["flap"], "benchmarks": ["boolq", "arc_easy"]}
    return study_grid(study_config({**given, "ratios": [(i + 1) / 100 for i in range(ratios)]}))


def row(benchmark: str, value: float, seconds: float) -> list[Measurement]:
    return [Measurement(model="m", benchmark=benchmark, metric="acc", value=value, n=9, seconds=seconds, primary=True)]


def console(height: int = 20) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=110, height=height, color_system=None)


def drawn(view: LiveView) -> list[str]:
    paper = Console(file=io.StringIO(), width=110)
    paper.print(view.table())
    assert isinstance(paper.file, io.StringIO)
    return [line.rstrip() for line in paper.file.getvalue().splitlines()]


def test_a_line_a_cell_with_state_figures_and_time_left() -> None:
    view = LiveView(console())
    grid = cells()
    dense, first, _second = grid
    boolq, arc = dense.runs
    view.begin(grid)
    assert view.summary() == "0 of 3 cells, time left unknown"
    view.cell_started(dense)
    view.benchmark_progress(dense, boolq, 1, 4)
    assert drawn(view)[1].split()[:4] == ["m", "dense", "boolq", "25%"]
    view.benchmark_done(dense, boolq, "m dense", row("boolq", 0.625, 10), False)
    assert view.summary() == "0 of 3 cells, more than 20 s left", "two of boolq, three of another not known"
    view.benchmark_done(dense, arc, "m dense", row("arc_easy", 0.5, 60), False)
    view.cell_done(dense)
    # 10 + 60 for each of two cells
    assert view.summary() == "1 of 3 cells, about 2 min left"
    view.cell_started(first)
    view.benchmark_progress(first, arc, 3, 4)
    # 70 for the last cell, 10 and a quarter of 60 for this one
    assert view.summary() == "1 of 3 cells, about 95 s left"
    view.failed([first], arc, "m flap 1%: arc_easy", RuntimeError("no such split\nmore"))
    view.cell_done(first)
    assert view.summary() == "2 of 3 cells, 1 failed, about 70 s left"
    lines = drawn(view)
    assert lines[1].split(maxsplit=3) == ["m", "dense", "done", "boolq acc 0.625, arc_easy acc 0.5"]
    assert lines[2].split(maxsplit=4) == ["m", "flap", "1%", "failed", "no such split"]
    assert lines[3].split() == ["m", "flap", "2%", "waiting"]
    view.end()


def test_a_low_terminal_shows_what_runs_and_what_failed() -> None:
    view = LiveView(console(height=12))
    grid = cells(ratios=40)
    view.begin(grid)
    for cell in grid[:30]:
        view.cell_started(cell)
        if cell is grid[3]:
            view.failed([cell], None, cell.label, DataError("no"))
        view.cell_done(cell)
    view.cell_started(grid[30])
    lines = drawn(view)
    view.end()
    assert len(lines) == 1 + 8 + 1
    assert any("m flap 3% " in line and "failed" in line for line in lines)
    assert any("m flap 30%" in line and "running" in line for line in lines)
    assert any("m flap 31%" in line and "waiting" in line for line in lines)
    assert lines[-1].endswith("(33 cells not shown)")


def test_warnings_are_printed_above_and_the_hook_is_put_back() -> None:
    view = LiveView(console())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = warnings.showwarning
        view.begin(cells())
        warnings.warn("a file is damaged", UserWarning, stacklevel=1)
        view.end()
        assert warnings.showwarning is before
    assert isinstance(view.console.file, io.StringIO)
    assert "warning: a file is damaged" in view.console.file.getvalue()


def test_plain_lines_tell_what_is_new() -> None:
    said: list[str] = []
    view = PlainView(said.append)
    dense = cells()[0]
    view.begin([dense])
    view.benchmark_progress(dense, dense.runs[0], 1, 2)
    view.benchmark_done(dense, dense.runs[0], "m dense", row("boolq", 0.625, 10), True)
    view.benchmark_done(dense, dense.runs[0], "m dense", row("boolq", 0.625, 10), False)
    view.failed([dense], None, "m dense", DataError("no data"))
    view.end()
    assert said == ["m dense: boolq acc 0.625 (10.0 s)", "m dense: failed: no data"]


def test_the_time_of_another_model_serves_where_there_is_no_own() -> None:
    grid = study_grid(
        study_config({"models": ["a", "b"], "methods": ["flap"], "ratios": [0.1], "benchmarks": ["boolq"]})
    )
    pace = Pace()
    pace.add(grid[0], grid[0].runs[0], 10)
    assert pace.of(grid[3], grid[3].runs[0]) == 10
    pace.add(grid[2], grid[2].runs[0], 30)
    assert pace.of(grid[3], grid[3].runs[0]) == 30
    assert pace.of(grid[1], grid[1].runs[0]) == 10


def test_where_there_is_no_terminal_a_line_is_said_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("prunelab.cli.terminal.time.monotonic", lambda: now[0])
    with bar("calibrating", 64) as progress:
        for done, later in ((1, 30), (2, 31), (3, 30), (32, 3000), (64, 90)):
            now[0] += later
            progress(done)
    assert capsys.readouterr().err == "calibrating: 2 of 64 in 1 min\ncalibrating: 32 of 64 in 52 min\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "no time left"), (119, "about 119 s left"), (600, "about 10 min left"),
                           (9000, "about 2.5 h left")]
)  # fmt: skip
def test_time_in_words(seconds: float, words: str) -> None:
    assert str(TimeLeft(seconds, True)) == words
