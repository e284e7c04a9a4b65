"""Trackers, one small file each. A new one is a new file here with one registered class."""

from __future__ import annotations

import importlib
import pkgutil

from prunelab.io.registry import Registry
from prunelab.studies.trackers.base import TrackedCell, Tracker

trackers: Registry[Tracker] = Registry("tracker")


def register(tracker: type[Tracker]) -> type[Tracker]:
    """Class decorator: make a tracker known under its name."""
    trackers.add(tracker.name, tracker())
    return tracker


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["TrackedCell", "Tracker", "register", "trackers"]
