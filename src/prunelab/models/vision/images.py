"""Images read one by one: whatever a file holds becomes an RGB picture, or a reason why not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelab.errors import DataError
from prunelab.io.lazy import Image
from prunelab.io.reading import read_bytes

MOST_PIXELS = 80_000_000
"""An image of more is not decoded: Pillow itself takes such files for attacks."""
LARGEST_FILE = 1 << 29
"""Bytes of an image's file at most."""
LARGE_SIDE = 4096
"""A larger image is scaled down to this; the largest size that Idefics3's image processor makes is below it."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_GREY = ("1", "L", "I", "I;16", "I;16B", "F")
_ORIENTATION = 0x0112
"""The EXIF tag in which a camera writes down how it was held."""
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
"""By EXIF orientation: the member of `Image.Transpose` that sets the image upright."""


class UnusableImage(DataError):
    """An image that cannot be shown to a model; its message is the reason in a few words."""


@dataclass(frozen=True)
class Picture:
    """An image that lies somewhere.

    Attributes:
        name: what messages call it.
        read: gives the file's bytes; raises OSError or DataError where there is none.
        size: gives their number without reading them, None where there is no file; for images in a folder.
    """

    name: str
    read: Callable[[], bytes]
    size: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Opened:
    """An image ready for a model.

    Attributes:
        image: RGB.
        remarks: what had to be done to it: `greyscale`, `transparent`, `scaled down`, `turned`.
    """

    image: Image.Image
    remarks: tuple[str, ...] = ()


def file_picture(path: Path) -> Picture:
    """The image in a file."""

    def size() -> int | None:
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError:
            return None

    return Picture(path.name, lambda: read_bytes(path, limit=LARGEST_FILE), size)


def row_picture(name: str, row: Callable[[], Mapping[str, Any] | None]) -> Picture:
    """The image in a data set's row, as `datasets.Image(decode=False)` gives it: bytes, or the path of a file.

    Args:
        name: what messages call it.
        row: gives the image's entry.
    """

    def read() -> bytes:
        entry = row() or {}
        if entry.get("bytes"):
            return bytes(entry["bytes"])
        if entry.get("path"):
            return read_bytes(entry["path"], limit=LARGEST_FILE)
        raise FileNotFoundError(name)

    return Picture(name, read)


def column_picture(name: str, rows: Any, index: int, column: str = "image") -> Picture:
    """The image in a column of a data set's row; `rows[index]` is read when the image is."""
    return row_picture(name, lambda: rows[index].get(column))


def open_picture(picture: Picture) -> Opened:
    """Read and decode an image; transparent ones are laid on white.

    Raises:
        UnusableImage: missing, broken, or enormous.
    """
    try:
        data = picture.read()
    except (OSError, ValueError, DataError):  # no such file, no regular file, or no name that a file could have
        raise UnusableImage("missing") from None
    try:
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UnusableImage(f"enormous ({width} x {height} pixels)")
        return _as_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableImage("enormous") from None
    except _BROKEN:
        raise UnusableImage("broken") from None


def _way_up(image: Image.Image) -> Image.Transpose | None:
    """What sets a photograph upright, as every viewer shows it and `datasets` decodes it; None where it stands."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # the picture itself has been decoded
        return None
    return None if turn is None else Image.Transpose[turn]


def _as_rgb(image: Image.Image) -> Opened:
    remarks = []
    if max(image.size) > LARGE_SIDE:
        remarks.append("scaled down")
        image.draft("RGB", (LARGE_SIDE, LARGE_SIDE))  # of a JPEG, decode no more than is needed
        image.thumbnail((LARGE_SIDE, LARGE_SIDE))
    image.load()
    if (way := _way_up(image)) is not None:
        remarks.append("turned")
        image = image.transpose(way)
    if image.mode in _GREY:
        remarks.append("greyscale")
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off instead of scaling
            image = image.convert("I").point(lambda value: value / 256).convert("L")
            image.info.pop("transparency", None)  # 16 bits as well
    if image.mode in _ALPHA or "transparency" in image.info:
        clear = image.convert("RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            remarks.append("transparent")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return Opened(image.convert("RGB"), tuple(remarks))
