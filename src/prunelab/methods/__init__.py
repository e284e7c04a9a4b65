"""Pruning methods, one file each. A new one is a new file here with one registered class."""

from __future__ import annotations

import importlib
import pkgutil

from prunelab.methods.base import Budget, Decision, Evidence, PruningMethod, ScoringMethod
from prunelab.registry import Registry

methods: Registry[PruningMethod] = Registry("method")


def register(method: type[PruningMethod]) -> type[PruningMethod]:
    """Class decorator: make a method known under its name."""
    methods.add(method.name, method())
    return method


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Budget", "Decision", "Evidence", "PruningMethod", "ScoringMethod", "methods", "register"]
