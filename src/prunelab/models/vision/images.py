"""Read images: every file becomes an RGB image, or an `UnusableImage` error with the reason."""

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
"""Larger images are not decoded: Pillow treats such files as decompression bombs."""
LARGEST_FILE = 1 << 29
"""The largest image file, in bytes."""
LARGE_SIDE = 4096
"""Larger images are scaled down to this side; the largest size of Idefics3's image processor is below it."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_GREY = ("1", "L", "I", "I;16", "I;16B", "F")
_ORIENTATION = 0x0112
"""The EXIF tag of a camera's orientation."""
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
"""By EXIF orientation: the member of `Image.Transpose` that sets the image upright."""


class UnusableImage(DataError):
    """An image that a model cannot process; the message is the reason in a few words."""


@dataclass(frozen=True)
class Picture:
    """An image that is read on demand.

    Attributes:
        name: the image's name in messages.
        read: returns the file's bytes; raises OSError or DataError if there is no file.
        size: returns the size of an image file in bytes without reading it; None if there is no file.
    """

    name: str
    read: Callable[[], bytes]
    size: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Opened:
    """A decoded image.

    Attributes:
        image: the image in RGB.
        remarks: the conversions: `greyscale`, `transparent`, `scaled down`, `turned`.
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
    """The image in a data set's row, in the form of `datasets.Image(decode=False)`: bytes, or the path of a file.

    Args:
        name: the image's name in messages.
        row: returns the image's entry.
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
    """The image in a column of a data set's row; `rows[index]` is read on demand."""
    return row_picture(name, lambda: rows[index].get(column))


def open_picture(picture: Picture) -> Opened:
    """Read and decode an image; transparent images are composited on white.

    Raises:
        UnusableImage: the image is missing, broken or enormous.
    """
    try:
        data = picture.read()
    except (OSError, ValueError, DataError):  # no such file, not a regular file, or an invalid file name
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
    """The transposition for a photograph's EXIF orientation, as viewers and `datasets` apply it; None if upright."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # a damaged EXIF block does not invalidate the image
        return None
    return None if turn is None else Image.Transpose[turn]


def _as_rgb(image: Image.Image) -> Opened:
    remarks = []
    if max(image.size) > LARGE_SIDE:
        remarks.append("scaled down")
        image.draft("RGB", (LARGE_SIDE, LARGE_SIDE))  # decodes a JPEG at reduced size
        image.thumbnail((LARGE_SIDE, LARGE_SIDE))
    image.load()
    if (transposition := _way_up(image)) is not None:
        remarks.append("turned")
        image = image.transpose(transposition)
    if image.mode in _GREY:
        remarks.append("greyscale")
        if image.mode.startswith("I"):  # 16 bits, which Pillow would truncate instead of scale
            image = image.convert("I").point(lambda value: value / 256).convert("L")
            image.info.pop("transparency", None)  # 16 bits as well
    if image.mode in _ALPHA or "transparency" in image.info:
        clear = image.convert("RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            remarks.append("transparent")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return Opened(image.convert("RGB"), tuple(remarks))
