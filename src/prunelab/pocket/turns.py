"""The order in which the tasks of the pocket data take turns, and the marks around their documents."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.pocket.tasks import TASKS

BEGIN, END = "<|begin|>", "<|end|>"


class Turns:
    """Which task's turn it is, so that all come to their shares."""

    def __init__(self) -> None:
        self._owed = dict.fromkeys(range(len(TASKS)), 0.0)

    def next(self) -> int:
        """The number of the task that is furthest behind its share."""
        return max(self._owed, key=self._owed.__getitem__)

    def take(self, index: int, amount: int, shares: Sequence[float]) -> None:
        """Count what a task has had of what all are owed, in whatever unit; shares are relative."""
        total = sum(shares)
        for other, share in enumerate(shares):
            self._owed[other] += amount * share / total
        self._owed[index] -= amount
