"""Plain values as bytes: the only data that two sandboxed processes exchange.

Reading builds only these types, runs no code of the other side, and imports only `decimal` and `fractions`; for any
bytes of a hostile program the result is a plain value or an exception. (`marshal` and `pickle` give no such guarantee;
JSON has neither tuples nor sets.)

    sent as itself         None, bool, int, float (nan and inf included), complex, str, bytes, bytearray, Ellipsis,
                           list, tuple, set, frozenset, dict, the keys of a dict, Decimal, Fraction
    sent as its base       an object of a class derived from one of these (a namedtuple is a tuple, a Counter a dict)
    sent as its items      an iterator (as an iterator), any other iterable (as a `Foreign` with these items)
    sent as its type name  everything else (as a `Foreign` without items)

A `Foreign` equals only itself: no comparison that the program defines affects the other side. Lists, sets, dicts and
bytearrays are numbered in order of their first occurrence, so that shared and recursive containers keep their identity,
and a function can change its arguments in place.
"""

from __future__ import annotations

from _collections_abc import Iterator

TYPE_CHECKING = False  # as in `typing`, whose import would take longer than everything else
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NUMBERED = (list, set, dict, bytearray)


class NotPlainError(TypeError):
    """A value that cannot be sent without loss."""


class Foreign:
    """Placeholder for an object of the other process that is not a plain value; `items` if it is iterable."""

    def __init__(self, type_name: str, items: list[object] | None) -> None:
        self.type_name = type_name
        self.items = items

    def __iter__(self) -> Iterator[object]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __getitem__(self, index: int) -> object:
        return self._known()[index]

    def __bool__(self) -> bool:
        return self.items is None or bool(self.items)

    def __repr__(self) -> str:
        return f"<{self.type_name} object>"

    def _known(self) -> list[object]:
        if self.items is None:
            raise TypeError(f"{self.type_name!r} object of the program's process is not a plain value")
        return self.items


class Writer:
    """Converts values to bytes.

    Args:
        objects: the numbered containers that both sides know, by number; new ones are appended.
        plain_only: raise NotPlainError for values that cannot be sent without loss, except placeholders that the other
            side sent.
    """

    def __init__(self, objects: list[object], plain_only: bool = False) -> None:
        self._objects = objects
        self._numbers = {id(each): number for number, each in enumerate(objects)}
        self._plain_only = plain_only

    def value(self, value: object) -> bytes:
        """The bytes of a value; a known container is sent as its number."""
        if value is None:
            return b"N"
        if value is True or value is False:
            return b"T" if value else b"B"
        if value is ...:
            return b"E"
        if isinstance(value, NUMBERED):
            number = self._numbers.get(id(value))
            if number is not None:
                return _sized(b"r", b"%d" % number)
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
            return self.content(value)
        return self._scalar(value)

    def content(self, value: object) -> bytes:
        """The bytes of a numbered container's items."""
        if isinstance(value, dict):
            return self._items(b"d", [each for pair in value.items() for each in pair])
        if isinstance(value, bytearray):
            return _sized(b"a", bytes(value))
        return self._items(b"l" if isinstance(value, list) else b"S", value)

    def _scalar(self, value: object) -> bytes:
        full_name = f"{type(value).__module__}.{type(value).__qualname__}"
        if full_name in _BY_NAME:
            return _sized(_BY_NAME[full_name], str(value).encode())
        for base, tag, to_bytes in _TO_BYTES:
            if isinstance(value, base):
                return _sized(tag, to_bytes(value))
        for base, tag in _GATHERED_AS:
            if isinstance(value, base):
                return self._items(tag, value)
        if isinstance(value, complex):
            return b"c" + self._scalar(value.real) + self._scalar(value.imag)
        if self._plain_only and not isinstance(value, (Foreign, Iterator)):
            raise NotPlainError(f"a {full_name} is not a plain value")
        return self._foreign(value)

    def _foreign(self, value: object) -> bytes:
        items: object
        if isinstance(value, Foreign):
            name, items = value.type_name, value.items
        else:
            name, items = type(value).__name__, value
            if isinstance(value, type) or not hasattr(type(value), "__iter__"):
                items = None
            elif isinstance(value, Iterator):
                return b"I" + self._items(b"l", value)
        sized_name = _sized(b"s", name.encode("utf-8", "surrogatepass"))
        return b"O" + sized_name if items is None else b"Q" + sized_name + self._items(b"l", items)

    def _items(self, tag: bytes, values: object) -> bytes:
        parts = [self.value(each) for each in values]  # type: ignore[attr-defined]
        return _sized(tag, b"%d" % len(parts)) + b"".join(parts)


def _sized(tag: bytes, data: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(data), data)


class Reader:
    """Converts bytes to values; raises an exception for bytes that no `Writer` produces.

    Args:
        data: the message.
        objects: as in the writer.
    """

    def __init__(self, data: bytes, objects: list[object]) -> None:
        self._data = data
        self._at = 0
        self._objects = objects

    def value(self) -> object:
        """The next value."""
        tag = self.tag()
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _SCALARS:
            return _SCALARS[tag](self._sized())
        if tag in _GATHERED:
            return _GATHERED[tag](self._items())
        return self._other(tag)

    def _other(self, tag: bytes) -> object:
        if tag == b"c":
            return complex(self._float(), self._float())
        if tag == b"r":
            return self._objects[int(self._sized())]
        if tag == b"I":
            return iter(self._list())
        if tag in (b"O", b"Q"):
            name = self.value()
            return Foreign(str(name), self._list() if tag == b"Q" else None)
        return self._container(tag)

    def tag(self) -> bytes:
        """The next byte, the tag of the next value."""
        tag = self._data[self._at : self._at + 1]
        self._at += 1
        return tag

    def update(self, known: object) -> None:
        """Update a known container in place with the next items; the tag `u` leaves it unchanged."""
        tag = self.tag()
        if tag == b"u":
            return
        if tag == b"l" and isinstance(known, list):
            known[:] = self._items()
        elif tag == b"S" and isinstance(known, set):
            items = self._items()
            known.clear()
            known.update(items)
        elif tag == b"d" and isinstance(known, dict):
            items = self._items()
            known.clear()
            known.update(zip(items[::2], items[1::2], strict=True))
        elif tag == b"a" and isinstance(known, bytearray):
            known[:] = self._sized()
        else:
            raise ValueError("an argument would change its type")

    def _container(self, tag: bytes) -> object:
        makers: dict[bytes, Callable[[], object]] = {b"l": list, b"S": set, b"d": dict, b"a": bytearray}
        if tag not in makers:
            raise ValueError(f"no value begins with {tag!r}")
        made = makers[tag]()
        self._objects.append(made)
        self._at -= 1
        self.update(made)
        return made

    def _list(self) -> list[object]:
        if self.tag() != b"l":
            raise ValueError("items are missing")
        return self._items()

    def _float(self) -> float:
        if self.tag() != b"f":
            raise ValueError("a part of a complex number is missing")
        return float.fromhex(self._sized().decode("ascii"))

    def _items(self) -> list[object]:
        return [self.value() for _ in range(int(self._sized()))]

    def _sized(self) -> bytes:
        colon = self._data.index(b":", self._at, self._at + 20)
        start = colon + 1
        end = start + int(self._data[self._at : colon])
        if not start <= end <= len(self._data):
            raise ValueError("the message is cut short")
        self._at = end
        return self._data[start:end]


def _decimal(data: bytes) -> object:
    from decimal import Decimal

    return Decimal(data.decode("ascii"))


def _fraction(data: bytes) -> object:
    from fractions import Fraction

    return Fraction(data.decode("ascii"))


_TO_BYTES: tuple[tuple[type, bytes, Callable[[Any], bytes]], ...] = (
    (int, b"i", lambda value: b"%x" % value),
    (float, b"f", lambda value: float.hex(value).encode()),
    (str, b"s", lambda value: value.encode("utf-8", "surrogatepass")),
    (bytes, b"b", bytes),
)
_GATHERED_AS: tuple[tuple[type, bytes], ...] = ((tuple, b"t"), (frozenset, b"Z"), (type({}.keys()), b"K"))
_BY_NAME = {"decimal.Decimal": b"D", "fractions.Fraction": b"F"}
_CONSTANTS: dict[bytes, object] = {b"N": None, b"T": True, b"B": False, b"E": ...}
_SCALARS: dict[bytes, Callable[[bytes], object]] = {
    b"i": lambda data: int(data, 16),
    b"f": lambda data: float.fromhex(data.decode("ascii")),
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"D": _decimal,
    b"F": _fraction,
}
_GATHERED: dict[bytes, Callable[[list[object]], object]] = {
    b"t": tuple,
    b"Z": frozenset,
    b"K": lambda items: dict.fromkeys(items).keys(),
}
