"""Drawing of a scene as an image of 48 by 48 pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from prunelab.io.lazy import Image, ImageDraw, ImageFont
from prunelab.pocket.vision.scene import COLOURS, SIDE, Drawn, Scene, Sign

CELL = 16
"""Side of a cell in pixels."""
SIZE = SIDE * CELL
GLYPH = 8
"""Distance between characters in pixels."""

Point = tuple[float, float]
Colour = tuple[int, int, int]


def draw(scene: Scene) -> Image.Image:
    """Draw the scene as an RGB image."""
    picture = Image.new("RGB", (SIZE, SIZE), scene.ground)
    pen = ImageDraw.Draw(picture)
    for shape in scene.shapes:
        _draw_shape(pen, shape, scene.ground)
    if scene.sign is not None:
        _draw_sign(pen, scene.sign)
    return picture


def _corner(cell: int) -> tuple[int, int]:
    return cell % SIDE * CELL, cell // SIDE * CELL


def _draw_sign(pen: ImageDraw.ImageDraw, sign: Sign) -> None:
    x, y = _corner(sign.cell)
    for index, character in enumerate(sign.text):
        place = (x + sign.shift[0] + index * GLYPH, y + sign.shift[1])
        pen.text(place, character, fill=COLOURS[sign.colour], font=_font())


@cache
def _font() -> ImageFont.ImageFont:
    """Pillow's bitmap font, which is identical on all platforms."""
    return ImageFont.load_default_imagefont()


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Drawn, ground: Colour) -> None:
    x, y = _corner(shape.cell)
    middle = (x + CELL // 2 + shape.shift[0], y + CELL // 2 + shape.shift[1])
    _PENS[shape.shape](pen, middle, shape.radius, COLOURS[shape.colour], ground)


def _box(middle: Point, radius: float) -> tuple[float, float, float, float]:
    return middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius


def _outline(*points: Point) -> Callable[..., None]:
    """A filled polygon, with points in units of the radius and y downwards."""

    def fill(pen: ImageDraw.ImageDraw, middle: Point, radius: float, colour: Colour, ground: Colour) -> None:
        pen.polygon([(middle[0] + radius * x, middle[1] + radius * y) for x, y in points], fill=colour)

    return fill


def _circle(pen: ImageDraw.ImageDraw, middle: Point, radius: float, colour: Colour, ground: Colour) -> None:
    pen.ellipse(_box(middle, radius), fill=colour)


def _ring(pen: ImageDraw.ImageDraw, middle: Point, radius: float, colour: Colour, ground: Colour) -> None:
    pen.ellipse(_box(middle, radius), outline=colour, width=2)


def _moon(pen: ImageDraw.ImageDraw, middle: Point, radius: float, colour: Colour, ground: Colour) -> None:
    pen.ellipse(_box(middle, radius), fill=colour)
    pen.ellipse(_box((middle[0] + 0.5 * radius, middle[1] - 0.2 * radius), 0.8 * radius), fill=ground)


def _heart(pen: ImageDraw.ImageDraw, middle: Point, radius: float, colour: Colour, ground: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(_box((middle[0] + side * radius / 2, middle[1] - radius / 2), radius / 2), fill=colour)
    _outline((-1, -0.3), (1, -0.3), (0, 1))(pen, middle, radius, colour, ground)


_INNER = 0.42
"""Inner radius of a star, relative to the outer one."""
_STAR = [
    (radius * math.sin(tip * math.pi / 5), -radius * math.cos(tip * math.pi / 5))
    for tip, radius in enumerate([1, _INNER] * 5)
]
_PENS: dict[str, Callable[..., None]] = {
    "circle": _circle,
    "square": _outline((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "star": _outline(*_STAR),
    "ring": _ring,
    "cross": _outline(
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ),
    "moon": _moon,
    "heart": _heart,
    "arrow": _outline((-1, -0.3), (0.1, -0.3), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.3), (-1, 0.3)),
    "triangle": _outline((0, -1), (1, 0.9), (-1, 0.9)),
    "diamond": _outline((0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)),
}  # fmt: skip
