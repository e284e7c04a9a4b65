"""Greedy depth: repeatedly remove the block whose removal raises the loss least (Song et al. 2024, SLEB)."""

from __future__ import annotations

from typing import ClassVar

from prunelab.pruning.allocation import KeptUnits, depth_count
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy
from prunelab.pruning.search.prefix_reuse import DROP, KEEP


@register
class GreedyDepth(PruningMethod):
    """Remove the block whose removal raises the loss on held-out calibration text least, until the budget is met.

    The blocks before a candidate are not run again, so a step costs half as many passes as there are blocks left.
    Deviation: SLEB measures the loss on the calibration samples, this on held-out windows.
    """

    name: ClassVar[str] = "greedy_depth"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "remove one block at a time: the one whose removal raises the calibration loss least"
    source: ClassVar[str] = "SLEB, Song et al. 2024"
    needs_loss: ClassVar[bool] = True

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """One removal per step."""
        shapes = evidence.decoder.shapes
        count = depth_count(shapes, budget.ratio, budget.constraints)
        span = budget.constraints.removable(len(shapes))
        if not count:
            return Decision(KeptUnits.everything(shapes))
        trunk = evidence.trunk
        before = trunk.passes
        removed: list[int] = []
        losses: list[float] = []
        for _ in range(count):
            trunk.set_reference([DROP if block in removed else KEEP for block in range(len(shapes))])
            measured = {}
            for block in span:
                if block not in removed:
                    choice = [DROP if other in (*removed, block) else KEEP for other in range(len(shapes))]
                    measured[block] = trunk.loss(choice)
            best = min(measured, key=lambda block: (measured[block], block))
            removed.append(best)
            losses.append(round(measured[best], 6))
        details = {"removed_in_order": removed, "losses": losses, "search_passes": round(trunk.passes - before, 2)}
        return Decision(KeptUnits.everything(shapes).without_blocks(removed), details=details)
