"""Charts as SVG and PNG files, drawn with matplotlib."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunelab.io.atomic_write import atomic_file
from prunelab.reports.chart import Chart, HeatMap, Panel, Point, Radar, Series
from prunelab.reports.figures.labels import label, literal_text
from prunelab.reports.figures.marks import mark_axes
from prunelab.reports.figures.ticks import limits, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour-blind safe (Okabe and Ito 2008); the page's style sheet has the same colours.
COLOURS = {
    "depth": "#0072B2", "width": "#D55E00", "hybrid": "#009E73", "dense": "#555555", "other": "#CC79A7",
    "step0": "#56B4E9", "step1": "#0072B2", "step2": "#CC79A7", "pale": "#C8C8C8",
}  # fmt: skip
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "up": "^", "down": "v", "cross": "X", "none": ""}
RINGS = (0.25, 0.5, 0.75, 1.0)
"""Number of rings of a radar chart."""
MOST = 24
"""Maximum number of panels per file; further panels continue in the next file."""


@literal_text()
def draw(chart: Chart, first: int = 0) -> Figure:
    """Draw the chart's panels from `first` on, at most `MOST`."""
    panels = chart.panels[first : first + MOST]
    across = 1 if chart.wide else min(chart.across, len(panels))
    down = math.ceil(len(panels) / across)
    heights = [_height(panel) for panel in panels]
    left, right, bottom, top = (_left(panels) if chart.wide else 0.65), 0.2, 0.5, 0.75
    inner = (6.0, sum(heights)) if chart.wide else (3.4 * across, 2.75 * down - 0.6)
    width, height = inner[0] + left + right, inner[1] + bottom + top
    figure = Figure(figsize=(width, height))
    # Margins in inches leave room for text outside the axes at any figure size.
    grid = figure.add_gridspec(
        down, across, height_ratios=heights if chart.wide else None, hspace=0.55, wspace=0.32,
        left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height,
    )  # fmt: skip
    for index, panel in enumerate(panels):
        place = grid[index // across, index % across]
        if isinstance(panel, Radar):
            _radar(figure.add_subplot(place), panel)
        elif isinstance(panel, HeatMap):
            _heat_map(figure.add_subplot(place), panel)
        else:
            _panel(figure.add_subplot(place), panel)
    handles = [_handle(line) for line in chart.legend if line.marker != "none"]
    if len(handles) > 1:
        figure.legend(handles=handles, loc="upper center", ncols=min(len(handles), 2 * across + 2), frameon=False,
                      fontsize=7, bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    return figure


def write_chart(chart: Chart, folder: Path) -> list[Path]:
    """Write the chart's SVG and PNG files; a chart with more than `MOST` panels takes several."""
    written = []
    for part, first in enumerate(range(0, len(chart.panels), MOST)):
        figure = draw(chart, first)
        for kind in ("svg", "png"):
            path = folder / f"{chart.name}{'' if part == 0 else f'_{part + 1}'}.{kind}"
            with atomic_file(path) as aside, rc_context({"svg.hashsalt": chart.name}):
                metadata = {"Date": None} if kind == "svg" else None  # the same data, the same file
                _save(figure, aside, kind, metadata)
            written.append(path)
    return written


def _save(figure: Figure, path: Path, kind: str, metadata: dict[str, None] | None) -> None:
    """Write a figure; a character missing from the font is drawn as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(path, format=kind, dpi=110, metadata=metadata)


def _left(panels: Sequence[object]) -> float:
    """Inches to reserve for the row names."""
    names = [
        name
        for panel in panels
        for name in (panel.rows if isinstance(panel, HeatMap) else panel.categories if isinstance(panel, Panel) else ())
    ]
    return 0.35 + 0.062 * max((len(label(name)) for name in names), default=5)


def _height(panel: object) -> float:
    if isinstance(panel, HeatMap):
        return 1.2 + 0.2 * len(panel.rows)
    return 1.2 + 0.3 * len(panel.categories) if isinstance(panel, Panel) and panel.categories else 2.9


def _style(line: Series) -> dict[str, Any]:
    return {"color": COLOURS[line.tint], "marker": MARKERS[line.marker], "ms": 4, "lw": 1.2,
            "ls": ("--" if line.dashed else "-") if line.line or line.marker == "none" else ""}  # fmt: skip


def _handle(line: Series) -> Line2D:
    return Line2D([], [], label=label(line.name), **_style(line))


def _panel(axes: Axes, panel: Panel) -> None:
    bars: list[tuple[Series, Point, float, float]] = []
    for line in panel.series:
        xs, ys = [p.x for p in line.points], [p.y for p in line.points]
        axes.plot(xs, ys, label=label(line.name), **_style(line))
        hollow = [p for p in line.points if p.hollow]
        if hollow:
            style = {**_style(line), "ls": "", "mfc": "white"}
            axes.plot([p.x for p in hollow], [p.y for p in hollow], label="_hollow", **style)
        bars += [(line, p, p.low, p.high) for p in line.points if p.low is not None and p.high is not None]
    ends = [
        ((low, p.y), (high, p.y)) if panel.categories else ((p.x, low), (p.x, high)) for _, p, low, high in bars
    ]  # fmt: skip
    colours = [COLOURS[line.tint] for line, *_ in bars]
    axes.add_collection(LineCollection(ends, colors=colours, lw=0.9, alpha=0.7), autolim=False)
    for level in panel.levels:
        axes.axhline(level.y, color="grey", lw=0.8, ls=":")
    x_range, y_range = limits(panel)
    axes.set_xlim(x_range)
    across = ticks(*x_range, 4)
    if panel.categories:
        axes.axvline(0, color="grey", lw=0.8)
        axes.set_ylim(*reversed(y_range))
        up, names = [float(row) for row in range(len(panel.categories))], panel.categories
    else:
        axes.set_ylim(y_range)
        up = ticks(*y_range, 4)
        names = tuple(f"{tick:g}" for tick in up)
    mark_axes(axes, (across, [f"{tick:g}" for tick in across], panel.x_label), (up, names, panel.y_label))
    _title(axes, panel, 1.03)


def _title(axes: Axes, panel: Panel | Radar, y: float) -> None:
    """Draw the panel's title and, below it, the hidden series as one text, since separate titles are slow."""
    above = 0.07 * len(panel.covered)
    axes.set_title(label(panel.title), fontsize=8, y=y + above)
    if panel.covered:
        covered = "\n".join(map(label, panel.covered))
        axes.text(0.5, y, covered, transform=axes.transAxes, ha="center", va="bottom", fontsize=6,
                  color="#555555")  # fmt: skip


def _radar(axes: Axes, panel: Radar) -> None:
    """Draw a radar chart on Cartesian axes: matplotlib's polar axes take three times as long."""
    turns = [2 * math.pi * spoke / len(panel.axes) for spoke in range(len(panel.axes))]
    spokes = [(math.sin(turn), math.cos(turn)) for turn in turns]
    rings = [[(share * panel.top * x, share * panel.top * y) for x, y in (*spokes, spokes[0])] for share in RINGS]
    web = [*rings, *([(0.0, 0.0), (panel.top * x, panel.top * y)] for x, y in spokes)]
    axes.add_collection(LineCollection(web, colors="#cccccc", lw=0.6), autolim=False)
    for line in panel.series:
        closed = [(spokes[int(p.x)], p.y) for p in (*line.points, line.points[0])]
        axes.plot(
            [r * x for (x, _), r in closed], [r * y for (_, y), r in closed], label=label(line.name), **_style(line)
        )
    for name, (x, y) in zip(panel.axes, spokes, strict=True):
        side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
        axes.text(1.17 * panel.top * x, 1.17 * panel.top * y, label(name), ha=side, va="center", fontsize=7)
    for share in RINGS:
        axes.text(
            0.02 * panel.top, share * panel.top, f"{share * panel.top:g}", va="bottom", fontsize=6, color="#666666"
        )
    axes.set_xlim(-1.3 * panel.top, 1.3 * panel.top)
    axes.set_ylim(-1.1 * panel.top, 1.2 * panel.top)
    axes.set_aspect("equal")
    axes.set_axis_off()
    _title(axes, panel, 1.06)


def _heat_map(axes: Axes, panel: HeatMap) -> None:
    width = len(panel.columns)
    rows = [[math.nan if v is None else v for v in row] + [math.nan] * (width - len(row)) for row in panel.values]
    axes.imshow(rows, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    every = max(1, width // 16)
    blocks = [float(block) for block in range(0, width, every)]
    cuts = [float(row) for row in range(len(panel.rows))]
    mark_axes(axes, (blocks, panel.columns[::every], panel.x_label), (cuts, panel.rows, ""), fontsize=6)
    axes.set_title(label(panel.title), fontsize=8, y=1.03)
