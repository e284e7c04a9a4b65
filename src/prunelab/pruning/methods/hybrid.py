"""Depth and width under one budget, the split chosen on held-out calibration text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.pruning.allocation import KeptUnits, allocate_depth, allocate_uniform, allocate_width, check_ratio
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy
from prunelab.pruning.methods.flap import Flap
from prunelab.pruning.methods.shortgpt import block_influence
from prunelab.pruning.scores import ImportanceScores

if TYPE_CHECKING:
    from prunelab.models.families import BlockShape


@register
class Hybrid(PruningMethod):
    """First remove the blocks of lowest Block Influence, then FLAP's units in the remaining blocks.

    Every number of blocks that the budget allows is tried, from none to as many as possible, so on the held-out text
    the choice is never worse than `shortgpt` or `flap`. One calibration pass serves all: FLAP standardises its scores
    per block, so the dense model's scores hold for the remaining blocks.
    """

    name: ClassVar[str] = "hybrid"
    strategy: ClassVar[Strategy] = "hybrid"
    summary: ClassVar[str] = "remove blocks, then key-value groups and MLP channels; split by calibration loss"
    source: ClassVar[str] = "the TMLR 2025 study's suggestion"
    needs_loss: ClassVar[bool] = True

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Try every split and keep the one with the lowest loss."""
        tried = []
        for kept in self.candidates(evidence, budget):
            tried.append((evidence.loss(kept), len(evidence.decoder.shapes) - len(kept.blocks), kept))
        loss, removed, kept = min(tried, key=lambda split: split[:2])
        return Decision(
            kept,
            notes=(
                f"split: {removed} blocks and the rest in width; lowest of {len(tried)} losses on held-out calibration "
                f"text ({loss:.4f})",
            ),
            details={
                "removed_blocks": removed,
                "splits": [{"removed_blocks": count, "loss": round(value, 6)} for value, count, _ in tried],
            },
        )

    def candidates(self, evidence: MethodInputs, budget: Budget) -> list[KeptUnits]:
        """One candidate for each number of removed blocks within the budget, and depth alone.

        Raises:
            InvalidRequest: no split reaches the budget.
        """
        check_ratio(budget.ratio)
        shapes = evidence.decoder.shapes
        influence = block_influence(evidence.statistics)
        width = Flap().score(evidence)
        total = sum(shape.cost for shape in shapes)
        span = budget.constraints.removable(len(shapes))
        order = sorted(span, key=lambda block: (influence[block].item(), block))[: len(span) - 1]
        cuts: list[Callable[[], KeptUnits]] = [
            lambda: allocate_depth(shapes, influence, budget.ratio, budget.constraints)
        ]
        for count in range(len(order) + 1):
            removed_cost = sum(shapes[block].cost for block in order[:count])
            rest = (budget.ratio * total - removed_cost) / (total - removed_cost)
            if rest > 0 or count == 0:
                removed = sorted(order[:count])
                cuts.append(partial(_cut_both, shapes, width, removed, replace(budget, ratio=rest)))
        return _reachable(cuts)


def _reachable(cuts: Sequence[Callable[[], KeptUnits]]) -> list[KeptUnits]:
    """The distinct feasible candidates; raises the last error if none is feasible."""
    reached: list[KeptUnits] = []
    refusal: InvalidRequest | None = None
    for make in cuts:
        try:
            kept = make()
        except InvalidRequest as error:
            refusal = error
            continue
        if kept not in reached:
            reached.append(kept)
    if not reached:
        assert refusal is not None
        raise refusal
    return reached


def _cut_both(
    shapes: Sequence[BlockShape], scores: ImportanceScores, removed: Sequence[int], budget: Budget
) -> KeptUnits:
    """Remove some blocks, and in the others the rest of the budget in width."""
    stay = [block for block in range(len(shapes)) if block not in removed]
    left_shapes = [shapes[block] for block in stay]
    assert scores.key_value_groups is not None
    assert scores.channels is not None
    remaining_scores = ImportanceScores(
        key_value_groups=tuple(scores.key_value_groups[block] for block in stay),
        channels=tuple(scores.channels[block] for block in stay),
    )
    if budget.group_counts is not None:
        kept = allocate_uniform(left_shapes, remaining_scores, budget.ratio, budget.group_counts, budget.constraints)
    else:
        kept = allocate_width(left_shapes, remaining_scores, budget.ratio, budget.constraints)
    return KeptUnits(tuple(stay), kept.key_value_groups, kept.channels)
