"""Queue of workers' events. This module imports nothing, so that the process that holds the queue starts quickly."""

from __future__ import annotations


class EventQueue:
    """Events in order of arrival, pickled so that only the driver needs their classes."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []

    def put(self, event: bytes) -> None:
        """Append an event."""
        self.packed.append(event)

    def collect(self) -> list[bytes]:
        """Return and remove all events."""
        packed, self.packed = self.packed, []
        return packed
