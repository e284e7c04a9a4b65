"""Trackers, one file each. To add one, add a file here with a registered class."""

from __future__ import annotations

from prunelab.io.registry import Registry, discover
from prunelab.studies.trackers.base import TrackedCell, Tracker

trackers: Registry[Tracker] = Registry("tracker")


def register(tracker: type[Tracker]) -> type[Tracker]:
    """Class decorator that registers a tracker under its name."""
    trackers.add(tracker.name, tracker())
    return tracker


discover(__name__, __path__, without=("base",))

__all__ = ["TrackedCell", "Tracker", "register", "trackers"]
