"""Sublayers: attention and MLP of a block dropped separately (He et al. 2024, LLM-Drop; Sandri et al. 2025, 2SSP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from prunelab.allocation import Kept, check_ratio
from prunelab.blockwise import Blockwise, Written
from prunelab.compensation import Compensation
from prunelab.errors import InvalidRequest
from prunelab.families import Decoder
from prunelab.methods import register
from prunelab.methods.base import Budget, Decision, Evidence, PruningMethod, Strategy
from prunelab.trunk import BlockChoice, SharedTrunk

Place = tuple[int, str]
"""A block and the output projection of one of its sublayers."""


def places_of(decoder: Decoder, budget: Budget) -> dict[Place, int]:
    """Every sublayer that may go, and its projection weights."""
    found = {}
    for block in budget.constraints.removable(len(decoder.shapes)):
        shape = decoder.shapes[block]
        for layout in decoder.family.layouts():
            cost = shape.group_cost if layout.unit == "key_value_group" else shape.channel_cost
            if shape.units(layout.part):
                found[block, layout.writer] = cost * shape.units(layout.part)
    return found


def without(decoder: Decoder, gone: Sequence[Place]) -> Kept:
    """What is left; a block that has neither sublayer any more goes whole."""
    attention, mlp = decoder.family.layouts()
    whole = Kept.everything(decoder.shapes)
    groups = tuple(() if (b, attention.writer) in gone else units for b, units in enumerate(whole.key_value_groups))
    channels = tuple(() if (b, mlp.writer) in gone else units for b, units in enumerate(whole.channels))
    empty = [block for block in whole.blocks if not groups[block] and not channels[block]]
    return Kept(whole.blocks, groups, channels).without_blocks(empty)


def drop_until(decoder: Decoder, budget: Budget, choose: Callable[[list[Place], list[Place]], Place]) -> list[Place]:
    """Drop sublayers one by one for as long as each brings the removed weights nearer to the budget.

    Args:
        decoder: the model.
        budget: how much.
        choose: from what is gone and what may go, the one that goes next.

    Raises:
        InvalidRequest: the ratio is out of reach.
    """
    check_ratio(budget.ratio)
    if budget.group_counts is not None:
        raise InvalidRequest("dropping sublayers leaves blocks that differ: leave out --uniform")
    costs, goal, removed = places_of(decoder, budget), budget.ratio * decoder.cost, 0
    gone: list[Place] = []
    while True:
        nearer = [p for p in costs if p not in gone and abs(removed + costs[p] - goal) <= abs(removed - goal)]
        if not nearer or len(gone) + 1 == 2 * len(decoder.shapes):
            break
        place = choose(gone, nearer)
        gone.append(place)
        removed += costs[place]
    if abs(removed - goal) > max(costs.values()):
        raise InvalidRequest(
            f"ratio {budget.ratio:g} is out of reach: the sublayers that may go hold "
            f"{sum(costs.values()) / decoder.cost:.3g} of the weights; ask for less, or protect fewer blocks"
        )
    return gone


@register
class Sublayer(PruningMethod):
    """Drop the attention or MLP whose absence raises the loss on held-out calibration text least per weight, again and
    again; the trunk before a candidate is not run again.

    2SSP does so with attentions alone, by perplexity; LLM-Drop by influence, see `sublayer_influence`.
    """

    name: ClassVar[str] = "sublayer"
    strategy: ClassVar[Strategy] = "hybrid"
    summary: ClassVar[str] = "drop whole attentions and MLPs, greedily by calibration loss"
    source: ClassVar[str] = "2SSP, Sandri et al. 2025"
    needs_loss: ClassVar[bool] = True
    compensation: ClassVar[Compensation | None] = "none"

    def decide(self, evidence: Evidence, budget: Budget) -> Decision:
        """One sublayer at a time."""
        decoder = evidence.decoder
        if budget.ratio == 0:
            return Decision(Kept.everything(decoder.shapes))
        trunk, costs = SharedTrunk(decoder, evidence.held_out), places_of(decoder, budget)

        def choose(gone: list[Place], able: list[Place]) -> Place:
            now = trunk.refer_to(_choices(decoder, gone))
            rise = {place: (trunk.loss(_choices(decoder, [*gone, place])) - now) / costs[place] for place in able}
            return min(rise, key=lambda place: (rise[place], place))

        gone = drop_until(decoder, budget, choose)
        details = {"removed_in_order": [list(place) for place in gone], "search_passes": round(trunk.passes, 2)}
        return Decision(without(decoder, gone), details=details)


def _choices(decoder: Decoder, gone: Sequence[Place]) -> list[BlockChoice]:
    chosen = []
    for block in range(len(decoder.shapes)):
        paths = tuple(path for at, path in sorted(gone) if at == block)
        writers = {path: Written(torch.zeros_like(decoder.weight(block, path))) for path in paths}
        chosen.append(BlockChoice(paths, writers, len(paths) == 2))
    return chosen


@register
class SublayerInfluence(PruningMethod):
    """Drop the attentions and MLPs that change the residual stream least.

    A sublayer's influence is one minus the mean cosine between the residual stream before and behind it, as Block
    Influence is a block's (LLM-Drop's importance). It takes one pass over the calibration tokens, block by block.
    """

    name: ClassVar[str] = "sublayer_influence"
    strategy: ClassVar[Strategy] = "hybrid"
    summary: ClassVar[str] = "drop whole attentions and MLPs of lowest influence"
    source: ClassVar[str] = "LLM-Drop, He et al. 2024"
    needs_loss: ClassVar[bool] = True
    compensation: ClassVar[Compensation | None] = "none"

    def decide(self, evidence: Evidence, budget: Budget) -> Decision:
        """The lowest influence goes first."""
        decoder = evidence.decoder
        if budget.ratio == 0:
            return Decision(Kept.everything(decoder.shapes))
        influence = sublayer_influence(evidence)
        gone = drop_until(decoder, budget, lambda gone, able: min(able, key=lambda place: (influence[place], place)))
        return Decision(without(decoder, gone), details={"removed_in_order": [list(place) for place in gone]})


def sublayer_influence(evidence: Evidence) -> dict[Place, float]:
    """1 - mean cosine of the residual stream before and behind each sublayer.

    Raises:
        InvalidRequest: there are no calibration tokens.
    """
    if evidence.calibration is None:
        raise InvalidRequest("this method runs the calibration tokens: give some")
    decoder, walk = evidence.decoder, Blockwise.of(evidence.decoder, evidence.calibration)
    attention, mlp = decoder.family.layouts()
    hidden, influence = walk.start, {}
    for block in range(len(decoder.shapes)):
        cosines: dict[str, list[Tensor]] = {attention.writer: [], mlp.writer: []}
        behind = []
        for batch, seen in enumerate(walk.watch(block, hidden)):
            assert seen.output is not None
            middle = hidden[batch] + seen.added[attention.writer] if attention.writer in seen.added else hidden[batch]
            for layout, before, after in ((attention, hidden[batch], middle), (mlp, middle, seen.output)):
                cosines[layout.writer].append(_cosines(walk, batch, before, after))
            behind.append(seen.output)
        for layout in (attention, mlp):
            influence[block, layout.writer] = 1 - _mean(cosines[layout.writer])
        hidden = behind
    return influence


def _mean(values: list[Tensor]) -> float:
    """Over all tokens."""
    return sum(v.double().sum().item() for v in values) / sum(v.numel() for v in values)


def _cosines(walk: Blockwise, batch: int, before: Tensor, after: Tensor) -> Tensor:
    return F.cosine_similarity(walk.counted(batch, before), walk.counted(batch, after), dim=-1)
