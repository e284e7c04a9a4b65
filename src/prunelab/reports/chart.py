"""Renderer-independent chart data: the page and the figure files are drawn from the same objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from prunelab.reports.columns import number


@dataclass(frozen=True)
class Point:
    """One data point.

    Attributes:
        x: horizontal coordinate.
        y: vertical coordinate; the category's index in a panel with categories.
        low: lower end of the error bar; None for no bar.
        high: upper end of the error bar.
        tip: text of the tooltip.
        hollow: whether the difference from the dense model is not significant.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """The points of one line or marker.

    Attributes:
        name: label in the legend.
        tint: the colour's key: `depth`, `width`, `hybrid`, `dense`, `other`, `pale` in files, or `step0` to `step2`
            for ratios.
        points: the points, in drawing order.
        marker: `circle`, `square`, `diamond`, `up`, `down` or `cross`.
        dashed: whether the line is dashed, as for baselines.
        line: whether the points are connected.
    """

    name: str
    tint: str
    points: tuple[Point, ...]
    marker: str = "circle"
    dashed: bool = False
    line: bool = True


def _covered(series: Sequence[Series]) -> tuple[str, ...]:
    """One sentence for each group of series that another series with identical points hides."""
    hidden: dict[str, list[str]] = {}
    first: dict[tuple[tuple[float, float], ...], str] = {}
    for line in series:
        places = tuple((point.x, point.y) for point in line.points)
        if line.marker != "none" and first.setdefault(places, line.name) != line.name:
            hidden.setdefault(first[places], []).append(line.name)
    return tuple(f"{', '.join(names)}: identical to {name}" for name, names in hidden.items())


@dataclass(frozen=True)
class Level:
    """A horizontal line: chance, or the dense model."""

    name: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes and what is drawn on them.

    Attributes:
        title: title above the axes.
        model: the model that the panel shows.
        series: the plotted series.
        levels: horizontal reference lines.
        categories: names on the vertical axis, from the top; error bars are then horizontal.
        focusable: whether points can be reached with the keyboard.
    """

    title: str
    model: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str = ""
    levels: tuple[Level, ...] = ()
    categories: tuple[str, ...] = ()
    focusable: bool = False

    @property
    def covered(self) -> tuple[str, ...]:
        """One sentence for each group of hidden series."""
        return _covered(self.series)

    @property
    def alt(self) -> str:
        """The text alternative."""
        return f"{self.title}. " + " ".join(f"{line.name}: {self._described(line)}." for line in self.series)

    def _described(self, line: Series) -> str:
        if self.categories:
            return ", ".join(f"{self.categories[round(p.y)]} {number(p.x, 3)}" for p in line.points)
        return ", ".join(f"{number(p.y, 3)} at {number(p.x, 3)}" for p in line.points)


@dataclass(frozen=True)
class Radar:
    """Values on spokes, with 0 at the centre.

    Attributes:
        axes: names of the spokes.
        series: the plotted series; a point's `x` is the index of its spoke.
        top: value at the rim.
    """

    title: str
    model: str
    axes: tuple[str, ...]
    series: tuple[Series, ...]
    top: float = 100.0

    @property
    def covered(self) -> tuple[str, ...]:
        """One sentence for each group of hidden series."""
        return _covered(self.series)

    @property
    def alt(self) -> str:
        """The text alternative."""
        descriptions = (
            f"{line.name}: " + ", ".join(f"{self.axes[int(p.x)]} {number(p.y, 3)}" for p in line.points) + "."
            for line in self.series
        )
        return f"{self.title}. " + " ".join(descriptions)


@dataclass(frozen=True)
class HeatMap:
    """Shares from 0 to 1, arranged in rows and columns.

    Attributes:
        rows: names of the rows.
        columns: names of the columns.
        values: the shares, row by row; None for an empty cell.
        tips: tooltips, in the shape of `values`.
    """

    title: str
    model: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    tips: tuple[tuple[str, ...], ...]
    x_label: str
    covered: tuple[str, ...] = ()

    @property
    def alt(self) -> str:
        """The text alternative: the non-zero columns of each row."""
        descriptions = []
        for row, values in zip(self.rows, self.values, strict=True):
            nonzero = [f"{c} {v:.0%}" for c, v in zip(self.columns, values, strict=True) if v]
            descriptions.append(f"{row}: {', '.join(nonzero) if nonzero else 'nothing'}.")
        return f"{self.title}. " + " ".join(descriptions)


AnyPanel: TypeAlias = Panel | Radar | HeatMap


@dataclass(frozen=True)
class Chart:
    """A figure with one or more panels.

    Attributes:
        name: stem of the figure's file names.
        title: title above the figure.
        caption: text below the figure: what it shows and how to read it.
        panels: the panels, all of one type.
        wide: whether each panel takes the full width of the page.
        across: maximum number of panels side by side in the figure files.
    """

    name: str
    title: str
    caption: str
    panels: tuple[AnyPanel, ...]
    wide: bool = False
    across: int = 4

    @property
    def legend(self) -> tuple[Series, ...]:
        """Each series once, by name."""
        series_by_name: dict[str, Series] = {}
        for panel in self.panels:
            if not isinstance(panel, HeatMap):
                for line in panel.series:
                    series_by_name.setdefault(line.name, line)
        return tuple(series_by_name.values())
