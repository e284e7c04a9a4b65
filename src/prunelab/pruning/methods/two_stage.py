"""Two stages: MLPs pruned to one width, then whole attentions removed (Sandri et al. 2025, 2SSP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import np
from prunelab.pruning.allocation import KeptUnits, cheapest_prefix, check_ratio
from prunelab.pruning.methods import register
from prunelab.pruning.methods.activation_norm import activation_sizes
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy
from prunelab.pruning.methods.sublayer import SublayerPosition, cheapest
from prunelab.pruning.search.layerwise import ProjectionOverride
from prunelab.pruning.search.prefix_reuse import PrefixCachedLoss

if TYPE_CHECKING:
    from prunelab.models.families import Decoder
    from prunelab.pruning.compensation import Compensation

ALPHA = 1.5
"""2SSP's balance between the stages (section 4.3)."""


def attentions_to_drop(blocks: int, ratio: float, mlp: int, attention: int) -> int:
    """round(B s^((w_MLP / w_attention) / alpha)), Eq. 5, limited by the budget.

    Args:
        blocks: B, the number of blocks that may be pruned.
        ratio: s, the share of their weights to remove.
        mlp: projection weights of one MLP.
        attention: projection weights of one attention.
    """
    wanted: int = round(blocks * ratio ** (mlp / attention / ALPHA))
    return min(wanted, int(ratio * blocks * (mlp + attention) / attention))


@register
class TwoStage(PruningMethod):
    """Remove the same number of channels from every MLP, those with the smallest activations, then whole attentions.

    The number of attentions follows from the ratio and from the sizes of attention and MLP; attentions are removed one
    by one, each time the one whose removal raises the loss on held-out calibration text least. Deviations: 2SSP
    averages the norms of samples, this takes the norm over all tokens; 2SSP's second stage uses one calibration sample,
    this the held-out text. There is no compensation, as in 2SSP. Where the number of channels is not divisible by the
    number of blocks, the first blocks lose one more channel, or one more `--channel-multiple`.
    """

    name: ClassVar[str] = "two_stage"
    strategy: ClassVar[Strategy] = "hybrid"
    summary: ClassVar[str] = "narrow every MLP to one width, then remove attention sublayers by calibration loss"
    source: ClassVar[str] = "2SSP, Sandri et al. 2025"
    needs_loss: ClassVar[bool] = True
    compensation: ClassVar[Compensation | None] = "none"

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Remove channels, then attentions."""
        check_ratio(budget.ratio)
        if budget.group_counts is not None:
            raise InvalidRequest("uniform widths and the removal of attentions exclude each other: leave out --uniform")
        decoder, everything = evidence.decoder, KeptUnits.everything(evidence.decoder.shapes)
        if budget.ratio == 0:
            return Decision(everything)
        fewer, count = _shared_between_stages(decoder, budget)
        kept_channels = tuple(_loudest(evidence, block, fewer.get(block, 0)) for block in everything.blocks)
        trunk = PrefixCachedLoss(decoder, evidence.held_out)
        overrides = {(b, decoder.family.mlp.output_projection): _silenced(decoder, b, kept_channels[b]) for b in fewer}
        removed: list[SublayerPosition] = []
        for _ in range(count):
            places = [(block, decoder.family.attention.output_projection) for block in fewer]
            removed.append(cheapest(trunk, removed, {place: 1 for place in places if place not in removed}, overrides))
        dropped = {block for block, _ in removed}
        groups = tuple(() if block in dropped else units for block, units in enumerate(everything.key_value_groups))
        return Decision(
            KeptUnits(everything.blocks, groups, kept_channels),
            details={"removed_in_order": [list(place) for place in removed], "search_passes": round(trunk.passes, 2)},
        )


def _shared_between_stages(decoder: Decoder, budget: Budget) -> tuple[dict[int, int], int]:
    """For each block that may be pruned the number of channels to remove, and the number of attentions to remove.

    Raises:
        InvalidRequest: the blocks differ, or the ratio is out of reach.
    """
    shapes = decoder.shapes
    span = [b for b in budget.constraints.removable(len(shapes)) if shapes[b].key_value_groups and shapes[b].channels]
    if not span or len({shapes[block] for block in span}) > 1:
        raise InvalidRequest(
            "two_stage needs blocks of equal shape and this model's blocks differ: use sublayer or auto"
        )
    shape, goal = shapes[span[0]], budget.ratio * decoder.cost
    attention = shape.key_value_groups * shape.group_cost
    count = attentions_to_drop(len(span), goal / len(span) / shape.cost, shape.cost - attention, attention)
    multiple = budget.constraints.channel_multiple
    widths = [shape.channels, *range((shape.channels - 1) // multiple * multiple, 0, -multiple)]
    steps = np.repeat(-np.diff(widths), len(span)) * shape.channel_cost
    rest = goal - count * attention
    if rest > steps.sum() + steps.max(initial=0) / 2:
        raise InvalidRequest(
            f"ratio {budget.ratio:g} is out of reach: with {count} attentions removed, the MLPs cannot reach the rest; "
            "request less, or protect fewer blocks"
        )
    each, first = divmod(cheapest_prefix(steps, rest), len(span))
    fewer = [shape.channels - widths[each + (place < first)] for place in range(len(span))]
    return dict(zip(span, fewer, strict=True)), count


def _loudest(evidence: MethodInputs, block: int, fewer: int) -> tuple[int, ...]:
    """The channels of an MLP without the `fewer` ones of smallest activations, ascending."""
    sizes = activation_sizes(evidence.statistics, block, evidence.decoder.family.mlp)
    return tuple(sorted(sizes.argsort(stable=True)[fewer:].tolist()))


def _silenced(decoder: Decoder, block: int, kept: tuple[int, ...]) -> ProjectionOverride:
    """An MLP's output projection with zeros in the columns of the removed channels."""
    weight = decoder.weight(block, decoder.family.mlp.output_projection).clone()
    stay = weight.new_zeros(weight.shape[1])
    stay[list(kept)] = 1
    return ProjectionOverride(weight * stay)
