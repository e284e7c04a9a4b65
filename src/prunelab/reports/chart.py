"""What a figure shows, before anything is drawn: the page and the files are drawn from the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from prunelab.reports.columns import number


@dataclass(frozen=True)
class Point:
    """One point.

    Attributes:
        x: across.
        y: up; in a panel with categories the number of one.
        low: where its error bar begins; None for no bar.
        high: where it ends.
        tip: what pointing at it tells.
        hollow: whether a test saw no change from the dense model.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: in the legend.
        tint: `depth`, `width`, `hybrid`, `dense`, `other`, `pale` in files, or `step0` to `step2` for ratios; gives the
            colour.
        points: in the order of the line.
        marker: `circle`, `square`, `diamond`, `up`, `down` or `cross`.
        dashed: how the line of a baseline is drawn.
        line: whether there is one.
    """

    name: str
    tint: str
    points: tuple[Point, ...]
    marker: str = "circle"
    dashed: bool = False
    line: bool = True


def _covered(series: Sequence[Series]) -> tuple[str, ...]:
    """Series whose points are all those of another, which cannot be seen under it, in words."""
    found: dict[str, list[str]] = {}
    first: dict[tuple[tuple[float, float], ...], str] = {}
    for line in series:
        places = tuple((point.x, point.y) for point in line.points)
        if line.marker != "none" and first.setdefault(places, line.name) != line.name:
            found.setdefault(first[places], []).append(line.name)
    return tuple(f"{', '.join(others)}: the same as {name}" for name, others in found.items())


@dataclass(frozen=True)
class Level:
    """A horizontal line: chance, or the dense model."""

    name: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        model: whose it is.
        series: what is drawn.
        levels: lines to compare with.
        categories: names on the vertical axis, from the top; error bars then lie.
        focusable: points can be reached by keyboard and tell what they are.
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
        """Series that cannot be seen for others, in words."""
        return _covered(self.series)

    @property
    def alt(self) -> str:
        """The panel in words."""
        return f"{self.title}. " + " ".join(f"{line.name}: {self._said(line)}." for line in self.series)

    def _said(self, line: Series) -> str:
        if self.categories:
            return ", ".join(f"{self.categories[round(p.y)]} {number(p.x, 3)}" for p in line.points)
        return ", ".join(f"{number(p.y, 3)} at {number(p.x, 3)}" for p in line.points)


@dataclass(frozen=True)
class Radar:
    """Values on spokes, 0 in the middle.

    Attributes:
        axes: what the spokes are.
        series: each point's `x` is the number of its spoke.
        top: the value at the rim.
    """

    title: str
    model: str
    axes: tuple[str, ...]
    series: tuple[Series, ...]
    top: float = 100.0

    @property
    def covered(self) -> tuple[str, ...]:
        """Series that cannot be seen for others, in words."""
        return _covered(self.series)

    @property
    def alt(self) -> str:
        """The panel in words."""
        said = (
            f"{line.name}: " + ", ".join(f"{self.axes[int(p.x)]} {number(p.y, 3)}" for p in line.points) + "."
            for line in self.series
        )
        return f"{self.title}. " + " ".join(said)


@dataclass(frozen=True)
class HeatMap:
    """Shares from 0 to 1 in rows and columns.

    Attributes:
        rows: their names.
        columns: their names.
        values: one row each; None where there is nothing.
        tips: as many.
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
        """The map in words: which columns each row touches."""
        said = []
        for row, values in zip(self.rows, self.values, strict=True):
            touched = [f"{c} {v:.0%}" for c, v in zip(self.columns, values, strict=True) if v]
            said.append(f"{row}: {', '.join(touched) if touched else 'nothing'}.")
        return f"{self.title}. " + " ".join(said)


AnyPanel: TypeAlias = Panel | Radar | HeatMap


@dataclass(frozen=True)
class Chart:
    """A figure of one or more panels.

    Attributes:
        name: of its files.
        title: above it.
        caption: below it: what to see, and how it was drawn.
        panels: of one kind.
        wide: whether each panel has the page's whole width.
        across: panels side by side in files, at most.
    """

    name: str
    title: str
    caption: str
    panels: tuple[AnyPanel, ...]
    wide: bool = False
    across: int = 4

    @property
    def legend(self) -> tuple[Series, ...]:
        """Every series once, by name."""
        found: dict[str, Series] = {}
        for panel in self.panels:
            if not isinstance(panel, HeatMap):
                for line in panel.series:
                    found.setdefault(line.name, line)
        return tuple(found.values())
