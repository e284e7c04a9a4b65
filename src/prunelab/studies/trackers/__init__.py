"""Trackers, one small file each. A new one is a new file here with one registered class."""

from __future__ import annotations

from prunelab.io.registry import Registry, discover
from prunelab.studies.trackers.base import TrackedCell, Tracker

trackers: Registry[Tracker] = Registry("tracker")


def register(tracker: type[Tracker]) -> type[Tracker]:
    """Class decorator: make a tracker known under its name."""
    trackers.add(tracker.name, tracker())
    return tracker


discover(__name__, __path__, without=("base",))

__all__ = ["TrackedCell", "Tracker", "register", "trackers"]
