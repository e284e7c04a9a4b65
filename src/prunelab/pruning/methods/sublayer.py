"""Sublayers: attention and MLP of a block removed separately and greedily (after Sandri et al. 2025, 2SSP)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import torch
from prunelab.pruning.allocation import KeptUnits, check_ratio
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy
from prunelab.pruning.search.layerwise import ProjectionOverride
from prunelab.pruning.search.prefix_reuse import BlockChoice, PrefixCachedLoss

if TYPE_CHECKING:
    from prunelab.models.families import Decoder
    from prunelab.pruning.compensation import Compensation

SublayerPosition = tuple[int, str]
"""A block and the output projection of one of its sublayers."""


def places_of(decoder: Decoder, budget: Budget) -> dict[SublayerPosition, int]:
    """The sublayers that may be removed, and their numbers of projection weights."""
    costs = {}
    for block in budget.constraints.removable(len(decoder.shapes)):
        shape = decoder.shapes[block]
        for layout in decoder.family.layouts():
            cost = shape.group_cost if layout.unit == "key_value_group" else shape.channel_cost
            if shape.units(layout.part):
                costs[block, layout.output_projection] = cost * shape.units(layout.part)
    return costs


def without(decoder: Decoder, removed: Sequence[SublayerPosition]) -> KeptUnits:
    """The kept units; a block that has lost both sublayers is removed."""
    attention, mlp = decoder.family.layouts()
    everything = KeptUnits.everything(decoder.shapes)
    groups = tuple(
        () if (b, attention.output_projection) in removed else units
        for b, units in enumerate(everything.key_value_groups)
    )
    channels = tuple(
        () if (b, mlp.output_projection) in removed else units for b, units in enumerate(everything.channels)
    )
    empty = [block for block in everything.blocks if not groups[block] and not channels[block]]
    return KeptUnits(everything.blocks, groups, channels).without_blocks(empty)


def drop_until(
    decoder: Decoder,
    budget: Budget,
    choose: Callable[[list[SublayerPosition], list[SublayerPosition]], SublayerPosition],
) -> list[SublayerPosition]:
    """Remove sublayers one by one while each brings the removed weights nearer to the budget.

    Args:
        decoder: the model.
        budget: the budget.
        choose: from the removed sublayers and the candidates to the next sublayer to remove.

    Returns:
        The removed sublayers, in order.

    Raises:
        InvalidRequest: uniform widths are requested, or the ratio is out of reach.
    """
    check_ratio(budget.ratio)
    if budget.group_counts is not None:
        raise InvalidRequest("uniform widths and the removal of sublayers exclude each other: leave out --uniform")
    costs, goal, removed = places_of(decoder, budget), budget.ratio * decoder.cost, 0
    dropped: list[SublayerPosition] = []
    while True:
        nearer = [p for p in costs if p not in dropped and abs(removed + costs[p] - goal) <= abs(removed - goal)]
        if not nearer or len(dropped) + 1 == 2 * len(decoder.shapes):
            break
        place = choose(dropped, nearer)
        dropped.append(place)
        removed += costs[place]
    if goal - removed > max(costs.values()) / 2 + 1e-9:
        raise InvalidRequest(
            f"ratio {budget.ratio:g} is out of reach: the sublayers that may be removed hold "
            f"{sum(costs.values()) / decoder.cost:.3g} of the weights; request less, or protect fewer blocks"
        )
    return dropped


class SublayerMethod(PruningMethod):
    """A method that removes whole attentions and MLPs."""

    strategy: ClassVar[Strategy] = "hybrid"
    compensation: ClassVar[Compensation | None] = "none"

    @abstractmethod
    def dropped(self, evidence: MethodInputs, budget: Budget) -> tuple[list[SublayerPosition], dict[str, Any]]:
        """The removed sublayers in order, and further keys of the plan's provenance."""

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Remove one sublayer after the other."""
        if budget.ratio == 0:
            return Decision(KeptUnits.everything(evidence.decoder.shapes))
        removed, details = self.dropped(evidence, budget)
        return Decision(
            without(evidence.decoder, removed),
            details={"removed_in_order": [list(place) for place in removed], **details},
        )


@register
class Sublayer(SublayerMethod):
    """Repeatedly remove the attention or MLP whose removal raises the loss on held-out calibration text least per
    weight; the blocks before a candidate are not run again.

    Deviations: 2SSP does this for attentions only, by perplexity (see `two_stage`); LLM-Drop ranks by influence (see
    `sublayer_influence`).
    """

    name: ClassVar[str] = "sublayer"
    summary: ClassVar[str] = "remove one attention or MLP sublayer at a time, by calibration loss per weight"
    source: ClassVar[str] = "after 2SSP, Sandri et al. 2025"
    needs_loss: ClassVar[bool] = True

    def dropped(self, evidence: MethodInputs, budget: Budget) -> tuple[list[SublayerPosition], dict[str, Any]]:
        """Remove the sublayer with the lowest loss increase per weight, one at a time."""
        trunk, before = evidence.trunk, evidence.trunk.passes
        costs = places_of(evidence.decoder, budget)
        removed = drop_until(
            evidence.decoder,
            budget,
            lambda removed, able: cheapest(trunk, removed, {place: costs[place] for place in able}),
        )
        return removed, {"search_passes": round(trunk.passes - before, 2)}


def cheapest(
    trunk: PrefixCachedLoss,
    removed: Sequence[SublayerPosition],
    able: Mapping[SublayerPosition, int],
    writers: Mapping[SublayerPosition, ProjectionOverride] | None = None,
) -> SublayerPosition:
    """The sublayer whose removal raises the loss least per weight.

    Args:
        trunk: computes losses.
        removed: sublayers removed so far.
        able: the candidates, with their weights.
        writers: output projections that are overridden in all candidates.
    """
    now = trunk.set_reference(_choices(trunk.walk.decoder, removed, writers or {}))
    rise = {
        place: (trunk.loss(_choices(trunk.walk.decoder, [*removed, place], writers or {})) - now) / cost
        for place, cost in able.items()
    }
    return min(rise, key=lambda place: (rise[place], place))


def _choices(
    decoder: Decoder, removed: Sequence[SublayerPosition], writers: Mapping[SublayerPosition, ProjectionOverride]
) -> list[BlockChoice]:
    chosen = []
    for block in range(len(decoder.shapes)):
        paths = tuple(path for at, path in sorted(removed) if at == block)
        overrides = {path: written for (at, path), written in writers.items() if at == block}
        overrides |= {path: ProjectionOverride(torch.zeros_like(decoder.weight(block, path))) for path in paths}
        chosen.append(BlockChoice(paths, overrides, len(paths) == 2))
    return chosen
