"""The order in which the tasks of the pocket data alternate, and the document markers."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.pocket.tasks import TASKS

BEGIN, END = "<|begin|>", "<|end|>"


class Turns:
    """Selects the next task such that all tasks reach their shares."""

    def __init__(self) -> None:
        self._owed = dict.fromkeys(range(len(TASKS)), 0.0)

    def next(self) -> int:
        """Index of the task that is furthest below its share."""
        return max(self._owed, key=self._owed.__getitem__)

    def take(self, index: int, amount: int, shares: Sequence[float]) -> None:
        """Record an amount for a task, in any unit; shares are relative."""
        total = sum(shares)
        for position, share in enumerate(shares):
            self._owed[position] += amount * share / total
        self._owed[index] -= amount
