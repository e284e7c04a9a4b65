"""Charts as SVG for the page, coloured by its style sheet, so that they follow the light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from prunelab.reports.chart import AnyPanel, HeatMap, Panel, Point, Radar, Series
from prunelab.reports.columns import number
from prunelab.reports.figures.ticks import limits, ticks

Scale = Callable[[float], float]
WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 40
ROW = 26


def panel_svg(panel: AnyPanel) -> Markup:
    """The SVG of one panel, with a text alternative."""
    if isinstance(panel, HeatMap):
        return _heat_map(panel)
    return _radar(panel) if isinstance(panel, Radar) else _axes(panel)


def marker_svg(line: Series) -> Markup:
    """The legend symbol of a series."""
    stroke = '<line x1="1" y1="7" x2="27" y2="7" class="line"/>' if line.line or line.marker == "none" else ""
    body = f'<g class="{_classes(line)}">{stroke}{_mark(line.marker, 14, 7)}</g>'
    return Markup(f'<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true">{body}</svg>')


def _framed(width: float, height: float, alt: str, body: Iterable[str], interactive: bool = False) -> Markup:
    role = "group" if interactive else "img"
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="{role}" aria-label="{escape(alt)}" '
        f'style="max-width:{1.35 * width:g}px">{"".join(body)}</svg>'
    )


def _axes(panel: Panel) -> Markup:
    (x0, x1), (y0, y1) = limits(panel)
    left = LEFT if not panel.categories else 16 + min(150.0, 5.6 * max(map(len, panel.categories)))
    height = HEIGHT if not panel.categories else TOP + BOTTOM + ROW * len(panel.categories)
    width = WIDTH if not panel.categories else 420
    right, floor = width - RIGHT, height - BOTTOM

    def across(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (right - left)

    def up(y: float) -> float:
        share = (y - y0) / (y1 - y0)
        return TOP + share * (floor - TOP) if panel.categories else floor - share * (floor - TOP)

    body = [_grid(panel, (x0, x1), (y0, y1), across, up, (left, right, floor))]
    for level in panel.levels:
        y = up(level.y)
        body.append(f'<line class="level" x1="{left:.1f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="tick" x="{right}" y="{y - 3:.1f}" text-anchor="end">{escape(level.name)}</text>')
    if panel.categories:
        body.append(f'<line class="zero" x1="{across(0):.1f}" x2="{across(0):.1f}" y1="{TOP}" y2="{floor}"/>')
    body += [_line(line, across, up, bool(panel.categories), panel.focusable) for line in panel.series]
    body.append(
        f'<text class="label" x="{(left + right) / 2:.0f}" y="{height - 6}" text-anchor="middle">'
        f"{escape(panel.x_label)}</text>"
    )
    if panel.y_label:
        middle = (TOP + floor) / 2
        body.append(
            f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(panel.y_label)}</text>"
        )
    return _framed(width, height, panel.alt, body, panel.focusable)


def _grid(
    panel: Panel,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    across: Scale,
    up: Scale,
    edges: tuple[float, float, float],
) -> str:
    """The ticks of both axes and the grid lines."""
    left, right, floor = edges
    drawn = [f'<line class="axis" x1="{left:.1f}" x2="{right}" y1="{floor}" y2="{floor}"/>']
    for tick in ticks(*x_range):
        x = across(tick)
        if panel.categories:
            drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>')
        drawn.append(f'<text class="tick" x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{number(tick, 3)}</text>')
    if panel.categories:
        rows = list(enumerate(panel.categories))
        for row, name in rows:
            drawn.append(
                f'<text class="tick" x="{left - 8:.1f}" y="{up(row) + 3.5:.1f}" text-anchor="end">'
                f"{escape(shortened(name, 28))}</text>"
            )
        return "".join(drawn)
    for tick in ticks(*y_range):
        y = up(tick)
        drawn.append(f'<line class="grid" x1="{left:.1f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
    return "".join(drawn)


def _line(line: Series, across: Scale, up: Scale, lying: bool, focusable: bool) -> str:
    placed = [(across(p.x), up(p.y), p) for p in line.points]
    drawn = []
    for x, y, p in placed:
        if p.low is not None and p.high is not None:
            a, b = (across(p.low), across(p.high)) if lying else (up(p.low), up(p.high))
            ends = (a, y, b, y) if lying else (x, a, x, b)
            drawn.append('<line class="bar" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends))
    if (line.line or line.marker == "none") and len(placed) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in placed)
        drawn.append(f'<path class="line" d="M{path}"/>')
    if line.marker != "none":
        of = _beginning([p.tip for p in line.points])
        points = "".join(_point(line, x, y, p, len(of), focusable) for x, y, p in placed)
        drawn.append(f"<g{_of(of)}>{points}</g>")
    return f'<g class="{_classes(line)}">{"".join(drawn)}</g>'


def _beginning(tips: Sequence[str]) -> str:
    """The common prefix of the texts."""
    first, last = min(tips, default=""), max(tips, default="")
    return first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _of(begins: str) -> str:
    """The common prefix of a group's tooltips, which the page's script prepends to each."""
    return f' data-of="{escape(begins)}"' if begins else ""


def _point(line: Series, x: float, y: float, p: Point, begins: int, focusable: bool) -> str:
    """A point; its tooltip's prefix is stored on its group, and the script makes the tooltip its accessible label."""
    tip = f' data-tip="{escape(p.tip[begins:])}"' if p.tip else ""
    reach = ' tabindex="-1"' if focusable else ""
    return f'<g class="point{" open" if p.hollow else ""}"{tip}{reach}>{_mark(line.marker, x, y)}</g>'


def _classes(line: Series) -> str:
    return f"s-{line.tint}{' dashed' if line.dashed else ''}"


# Relative path: from the centre to the first corner, then from corner to corner.
_SHAPES = {
    "square": "m-3.6-3.6h7.2v7.2h-7.2",
    "diamond": "m0-5.2l5.2 5.2-5.2 5.2-5.2-5.2",
    "up": "m0-4.8l4.6 8.4h-9.2",
    "down": "m0 4.8l4.6-8.4h-9.2",
    "cross": "m-4.8-2.4l2.4-2.4 2.4 2.4 2.4-2.4 2.4 2.4-2.4 2.4 2.4 2.4-2.4 2.4-2.4-2.4-2.4 2.4-2.4-2.4 2.4-2.4",
}


def _mark(marker: str, x: float, y: float) -> str:
    if marker == "none":
        return ""
    if marker == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    return f'<path d="M{x:.1f} {y:.1f}{_SHAPES[marker]}z"/>'


def _radar(panel: Radar) -> Markup:
    width, height, middle, reach = 340, 290, (170.0, 150.0), 105.0

    def place(spoke: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * spoke / len(panel.axes) - math.pi / 2
        r = reach * max(0.0, min(value / panel.top, 1.0))
        return middle[0] + r * math.cos(angle), middle[1] + r * math.sin(angle)

    def ring(values: Iterable[tuple[int, float]]) -> str:
        return "L".join("{:.1f} {:.1f}".format(*place(spoke, value)) for spoke, value in values)

    body = []
    for share in (0.25, 0.5, 0.75, 1.0):
        value = share * panel.top
        body.append(f'<path class="grid" d="M{ring((i, value) for i in range(len(panel.axes)))}Z"/>')
        x, y = place(0, value)
        body.append(f'<text class="tick" x="{x + 3:.1f}" y="{y - 2:.1f}">{number(value, 3)}</text>')
    for spoke, name in enumerate(panel.axes):
        x, y = place(spoke, 1.14 * panel.top)
        far = (middle[0] + 1.14 * (place(spoke, panel.top)[0] - middle[0]), middle[1] + 1.14 * (
            place(spoke, panel.top)[1] - middle[1]))  # fmt: skip
        anchor = "middle" if abs(far[0] - middle[0]) < 20 else "start" if far[0] > middle[0] else "end"
        body.append(f'<path class="grid" d="M{middle[0]} {middle[1]}L{ring([(spoke, panel.top)])}"/>')
        body.append(
            f'<text class="label" x="{far[0]:.1f}" y="{far[1] + 4:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    for line in panel.series:
        path = ring((int(p.x), p.y) for p in line.points)
        of = _beginning([p.tip for p in line.points])
        points = "".join(_point(line, *place(int(p.x), p.y), p, len(of), False) for p in line.points)
        body.append(f'<g class="{_classes(line)}"{_of(of)}><path class="line" d="M{path}Z"/>{points}</g>')
    return _framed(width, height, panel.alt, body)


def _heat_map(panel: HeatMap) -> Markup:
    row, column = 18.0, max(9.0, min(34.0, 420 / len(panel.columns)))
    left, top = 14 + 6.0 * max(map(len, panel.rows)), 6.0
    width, floor = left + column * len(panel.columns) + 8, top + row * len(panel.rows)
    body = []
    for i, (name, values, tips) in enumerate(zip(panel.rows, panel.values, panel.tips, strict=True)):
        y = top + i * row
        body.append(f'<text class="tick" x="{left - 6:.0f}" y="{y + 12.5:.1f}" text-anchor="end">{escape(name)}</text>')
        # Untouched blocks need no tooltip: one faint bar per row, and a mark for each block with removed weights.
        body.append(
            f'<rect class="heat" x="{left:.0f}" y="{y:.1f}" width="{column * len(values) - 1.2:.1f}" '
            f'height="{row - 1.5:g}" fill-opacity=".06"/>'
        )
        of = _beginning([tip for value, tip in zip(values, tips, strict=True) if value])
        marks = []
        for j, (value, tip) in enumerate(zip(values, tips, strict=True)):
            if value:
                share = f"{0.06 + 0.94 * value:.2f}".lstrip("0")
                marks.append(f'<rect x="{j * column:.4g}" fill-opacity="{share}" data-tip="{escape(tip[len(of) :])}"/>')
        body.append(f'<g class="heat" transform="translate({left:.0f} {y:.1f})"{_of(of)}>{"".join(marks)}</g>')
    every = max(1, math.ceil(22 / column))
    for j, name in enumerate(panel.columns):
        if j % every == 0:
            x = left + (j + 0.5) * column
            body.append(
                f'<text class="tick" x="{x:.1f}" y="{floor + 13:.0f}" text-anchor="middle">{escape(name)}</text>'
            )
    body.append(
        f'<text class="label" x="{(left + width) / 2:.0f}" y="{floor + 29:.0f}" text-anchor="middle">'
        f"{escape(panel.x_label)}</text>"
    )
    size = f"--w:{column - 1.2:.1f}px;--h:{row - 1.5:g}px"
    return _framed(width, floor + 36, panel.alt, [f'<g style="{size}">', *body, "</g>"])


def shortened(text: str, most: int) -> str:
    """Shorten a text to at most `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
