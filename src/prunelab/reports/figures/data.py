"""A chart's values as a table, as an accessible alternative to the figure."""

from __future__ import annotations

from prunelab.reports.chart import Chart, HeatMap, Panel, Point, Radar, Series
from prunelab.reports.columns import number
from prunelab.reports.elements import Row, TableCell, TableData


def chart_sheet(chart: Chart) -> TableData:
    """All points with their error bars; for a heat map, all rows."""
    caption = f"{chart.title}: table of values"
    maps = [panel for panel in chart.panels if isinstance(panel, HeatMap)]
    if maps:
        widest = max((panel.columns for panel in maps), key=len)
        rows = tuple(
            Row(
                (TableCell(panel.title), TableCell(name), *(_cell(value) for value in _padded(values, len(widest)))),
                panel.model,
            )
            for panel in maps
            for name, values in zip(panel.rows, panel.values, strict=True)
        )
        columns = ("panel", "cut", *(f"{maps[0].x_label} {name}" for name in widest))
        return TableData(f"figure_{chart.name}", caption, columns, rows, heading=1, folded=True)
    rows = tuple(
        Row((TableCell(panel.title), TableCell(line.name), *_point(panel, line, point)), panel.model)
        for panel in chart.panels
        if not isinstance(panel, HeatMap)
        for line in panel.series
        if line.marker != "none"
        for point in line.points
    )
    axes = ("domain", "value") if isinstance(chart.panels[0], Radar) else _axes(chart)
    return TableData(f"figure_{chart.name}", caption, ("panel", "series", *axes), rows, heading=1, folded=True)


def _axes(chart: Chart) -> tuple[str, ...]:
    first = chart.panels[0]
    if isinstance(first, Panel) and first.categories:
        return ("benchmark", "value", "low", "high")
    return ("x", "y", "low", "high")


def _point(panel: Panel | Radar, line: Series, point: Point) -> tuple[TableCell, ...]:
    if isinstance(panel, Radar):
        return (TableCell(panel.axes[int(point.x)]), _cell(point.y))
    bar = (_cell(point.low), _cell(point.high))
    if panel.categories:
        return (TableCell(panel.categories[round(point.y)]), _cell(point.x), *bar)
    return (_cell(point.x), _cell(point.y), *bar)


def _cell(value: float | None) -> TableCell:
    return TableCell("–") if value is None else TableCell(number(value), value)


def _padded(values: tuple[float | None, ...], to: int) -> tuple[float | None, ...]:
    return values + (None,) * (to - len(values))
