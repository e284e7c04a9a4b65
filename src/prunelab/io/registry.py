"""Names for things: register once, look up with a suggestion for a typo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from prunelab.errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered table of named things of one kind.

    Args:
        kind: what the things are called in an error message, such as "method".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Register `thing` as `name`; a second registration of one name is a programming error."""
        if name in self._things:
            raise ValueError(f"two {self.kind}s are called {name!r}")
        self._things[name] = thing
        return thing

    def __getitem__(self, name: str) -> T:
        try:
            return self._things[name]
        except KeyError:
            raise UnknownName(self.kind, name, self._things) from None

    def __contains__(self, name: str) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def values(self) -> Iterator[T]:
        """The registered things, in order of registration."""
        return iter(self._things.values())
