"""The content of an image: shapes in the cells of a grid, and often a sign with a number or a word."""

from __future__ import annotations

import random
from dataclasses import dataclass

from prunelab.pocket.held_out import is_held_out

SIDE = 3
"""Number of cells per side."""
SHAPES = ("circle", "square", "star", "ring", "cross", "moon", "heart", "arrow", "triangle", "diamond")
FREQUENT = SHAPES[:3]
"""Shapes drawn three times as often as others, as POPE's popular objects."""
COLOURS = {
    "red": (214, 32, 32),
    "green": (24, 150, 48),
    "blue": (36, 72, 220),
    "orange": (240, 140, 0),
    "purple": (150, 40, 170),
    "black": (24, 24, 24),
}
PLACES = (
    "at the top left", "at the top", "at the top right", "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
_WORDS = """
ACE AIR ANT APE ARM ART BAG BAR BAT BED BEE BIG BOW BOX BUS CAB CAKE CAN CAP CAR CAT COAT COLD COW
CUP DAY DOG DOOR DOT DRUM DUCK EAR EGG EXIT EYE FAN FARM FIRE FISH FIX FLAG FOG FOOD FORK FOX FROG
FUN GAME GATE GIFT GLUE GOAT GOLD GUM HAM HAT HEN HILL HOME HOT HOUR HUB ICE INK INN JAM JAR JET JOB
JOY KEY KING KITE LAB LAMP LEAF LEG LID LION LOCK LOG MAIL MAP MAT MILK MIX MOON MUD NAIL NET NEW
NEST NUT OAK OIL OPEN OVEN OWL PAN PARK PEN PIE PIG PIN PLUM POOL POT QUIZ RAIN RED RICE RING ROAD
ROCK ROPE RUG SALE SALT SAND SHIP SHOP SKY SNOW SOAP SOUP STAR STOP SUN TAXI TEA TEN TENT TOE TOP
TOY TREE TUB VAN VASE WAX WEB WIND WOLF WOOD YAK YARN YES ZEBU ZOO
"""
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True)
class Drawn:
    """One shape.

    Attributes:
        shape: name of the shape.
        colour: name of the colour.
        cell: index of the cell, row by row from the top left.
        radius: radius in pixels.
        shift: offset from the cell's centre in pixels.
    """

    shape: str
    colour: str
    cell: int
    radius: int
    shift: tuple[int, int]


@dataclass(frozen=True)
class Sign:
    """A number or a word that spans two adjacent cells.

    Attributes:
        text: digits or capital letters, at most four.
        cell: index of the left cell.
        colour: colour of the text.
        shift: offset of the text from the cell's upper left corner in pixels.
    """

    text: str
    cell: int
    colour: str
    shift: tuple[int, int]

    @property
    def is_number(self) -> bool:
        """Whether the text is a number."""
        return self.text.isdigit()


@dataclass(frozen=True)
class Scene:
    """The content of an image.

    Attributes:
        shapes: two to five distinct shapes, by cell.
        sign: the sign, if any.
        ground: background colour.
    """

    shapes: tuple[Drawn, ...]
    sign: Sign | None
    ground: tuple[int, int, int]

    @property
    def is_held_out(self) -> bool:
        """Whether it is held out, decided by the sign's text, or else by the shapes and their cells."""
        if self.sign is not None:
            return is_held_out("sign", self.sign.text)
        return is_held_out("scene", [(drawn.shape, drawn.colour, drawn.cell) for drawn in self.shapes])

    @property
    def present(self) -> frozenset[str]:
        """The names of the shapes."""
        return frozenset(drawn.shape for drawn in self.shapes)


def companion(shape: str) -> str:
    """The shape that often occurs with a shape, for POPE's adversarial questions."""
    return SHAPES[SHAPES.index(shape) ^ 1]


def make_scene(rng: random.Random, held_out: bool, sign: bool | None = None) -> Scene:
    """A random scene.

    Args:
        rng: random generator.
        held_out: whether the scene is for the benchmarks or for training.
        sign: whether the scene has a sign; random by default.
    """
    while True:
        scene = _any_scene(rng, rng.random() < 0.6 if sign is None else sign, held_out)
        if scene.is_held_out == held_out:
            return scene


def _any_scene(rng: random.Random, with_sign: bool, held_out: bool) -> Scene:
    cells = list(range(SIDE * SIDE))
    sign = None
    if with_sign:
        left = rng.choice([cell for cell in cells if cell % SIDE < SIDE - 1])
        cells = [cell for cell in cells if cell not in (left, left + 1)]
        colour = rng.choice(list(COLOURS))
        sign = Sign(_writing(rng, held_out), left, colour, (rng.randint(0, 2), rng.randint(1, 4)))
    count = rng.randint(2, 5)
    drawn = [
        Drawn(shape, rng.choice(list(COLOURS)), cell, rng.randint(5, 6), (rng.randint(-1, 1), rng.randint(-1, 1)))
        for shape, cell in zip(_shapes(rng, count), rng.sample(cells, count), strict=True)
    ]
    ground = (rng.randint(225, 255), rng.randint(225, 255), rng.randint(225, 255))
    return Scene(tuple(sorted(drawn, key=lambda shape_drawn: shape_drawn.cell)), sign, ground)


def _shapes(rng: random.Random, count: int) -> list[str]:
    """Distinct shapes, frequent ones more often, and half of them with their companions."""
    chosen: list[str] = []
    while len(chosen) < count:
        companion_shape = companion(chosen[-1]) if chosen and rng.random() < 0.5 else None
        shape = companion_shape or rng.choice(SHAPES + 2 * FREQUENT)
        if shape not in chosen:
            chosen.append(shape)
    return chosen


def _writing(rng: random.Random, held_out: bool) -> str:
    """A number, a word, or, in training, random letters, so that the model learns to read and not to recall words."""
    if rng.random() < 0.5:
        return str(rng.randint(10, 9999))
    if held_out or rng.random() < 0.5:
        return rng.choice(WORDS)
    return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(3, 4)))
