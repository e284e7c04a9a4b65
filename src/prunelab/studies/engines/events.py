"""Where workers leave what they have to tell. Nothing is imported here: the process that keeps it starts at once."""

from __future__ import annotations


class EventQueue:
    """Events in the order in which they came, packed so that nobody but the driver needs to know what they are."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []

    def put(self, event: bytes) -> None:
        """Leave one."""
        self.packed.append(event)

    def collect(self) -> list[bytes]:
        """What has come since the last time."""
        packed, self.packed = self.packed, []
        return packed
