"""Registries of named objects, with suggestions for typos, and discovery of third-party plug-ins."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from prunelab.errors import UnknownName, first_line

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered table of named objects of one kind.

    Args:
        kind: name of the kind in error messages, such as "method".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Register `thing` as `name`; registering a name twice is a programming error."""
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
        """The registered objects, in order of registration."""
        return iter(self._things.values())


def discover(package: str, path: Iterable[str], *, without: Collection[str] = ()) -> None:
    """Import the modules of a package, which register their objects, and then third-party plug-ins.

    A third-party package lists its modules in an entry-point group: `prunelab.methods`, `prunelab.benchmarks`,
    `prunelab.families` or `prunelab.trackers`. A plug-in that cannot be imported is skipped with a warning.

    Args:
        package: the package's name; its last part names the group.
        path: the package's `__path__`.
        without: modules that define nothing to register.
    """
    for module in pkgutil.iter_modules(path):
        if module.name not in without:
            importlib.import_module(f"{package}.{module.name}")
    for plugin in entry_points(group=f"prunelab.{package.rpartition('.')[2]}"):
        try:
            plugin.load()
        except Exception as error:  # noqa: BLE001  (third-party code can raise anything)
            source = plugin.dist.name if plugin.dist is not None else plugin.value
            warnings.warn(
                f"plug-in {plugin.name!r} of the package {source} cannot be imported ({first_line(error)}) and is "
                f"skipped: upgrade or uninstall {source}",
                UserWarning,
                stacklevel=2,
            )
