"""Pruning methods, one file each. A new method is a new file here with one registered class.

`flap+least_squares` is `flap` with a compensation other than its default.
"""

from __future__ import annotations

import copy
from typing import get_args

from prunelab.errors import UnknownName
from prunelab.io.registry import Registry, discover
from prunelab.pruning.compensation import Compensation
from prunelab.pruning.methods.base import (
    Budget,
    Decision,
    MethodInputs,
    PruningMethod,
    ScoringMethod,
    Shared,
    WidthMethod,
)


class MethodRegistry(Registry[PruningMethod]):
    """The methods by name; a plus sign and a compensation may follow the name."""

    def __getitem__(self, name: str) -> PruningMethod:
        base, plus, compensation = name.partition("+")
        method = super().__getitem__(base)
        if not plus:
            return method
        if compensation not in get_args(Compensation):
            raise UnknownName("compensation", compensation, get_args(Compensation))
        method = copy.copy(method)
        vars(method).update(name=name, compensation=compensation)
        return method

    def __contains__(self, name: str) -> bool:
        base, plus, compensation = name.partition("+")
        return super().__contains__(base) and (not plus or compensation in get_args(Compensation))


methods = MethodRegistry("method")


def register(method: type[PruningMethod]) -> type[PruningMethod]:
    """Class decorator: register a method under its name."""
    methods.add(method.name, method())
    return method


discover(__name__, __path__, without=("base",))

__all__ = [
    "Budget",
    "Decision",
    "MethodInputs",
    "PruningMethod",
    "ScoringMethod",
    "Shared",
    "WidthMethod",
    "methods",
    "register",
]
