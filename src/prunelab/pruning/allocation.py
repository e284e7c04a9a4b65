"""Allocate the budget: from importance scores to the units that are kept.

Every removable unit has a score and a cost, its number of projection weights. Units are removed in ascending order of
score up to the count whose removed weights are nearest to the budget, so the achieved ratio differs from the requested
one by at most half the largest eligible unit (or rounding step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from prunelab.errors import InvalidRequest, UnknownName
from prunelab.io.bounds import CONSTRAINTS, RATIO, check_all, shown
from prunelab.io.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.families import BlockShape
    from prunelab.pruning.scores import ImportanceScores

Competition = Literal["all", "modules", "blocks", "blocks_and_modules"]


@dataclass(frozen=True)
class Constraints:
    """Constraints of an allocation.

    Attributes:
        protect_first: number of blocks at the beginning that are not pruned.
        protect_last: number of blocks at the end that are not pruned.
        channel_multiple: pruned MLP widths are a multiple of this (64 or 128 suit most hardware); an MLP that is not
            pruned keeps its width.
        drop_sublayers: allow the removal of a block's whole attention or MLP; otherwise one key-value group and one
            step of channels stay.
        competition: which units share one width budget: all units (`all`); attention and MLP separately, each losing
            the same share (`modules`); each block separately (`blocks`); or each block's attention and MLP separately
            (`blocks_and_modules`). FLAP's code calls `all`, `modules` and `blocks_and_modules` AL-AM, AL-MM and UL-UM.

    Raises:
        InvalidRequest: a value is out of bounds.
        UnknownName: there is no such competition.
    """

    protect_first: int = 0
    protect_last: int = 0
    channel_multiple: int = 1
    drop_sublayers: bool = False
    competition: Competition = "all"

    def __post_init__(self) -> None:
        """Check the values; the command line checks them as well."""
        check_all(vars(self), CONSTRAINTS)
        if self.competition not in get_args(Competition):
            raise UnknownName("competition", self.competition, get_args(Competition))

    def removable(self, blocks: int) -> range:
        """Numbers of the blocks that may be pruned.

        Raises:
            InvalidRequest: every block is protected.
        """
        span = range(self.protect_first, blocks - self.protect_last)
        if not span:
            raise InvalidRequest(
                f"protecting the first {self.protect_first} and the last {self.protect_last} of {blocks} blocks leaves "
                "nothing to prune; protect fewer blocks"
            )
        return span


@dataclass(frozen=True)
class KeptUnits:
    """Units that are kept, as indices into the model before pruning.

    Attributes:
        blocks: kept blocks, ascending.
        key_value_groups: for each kept block, its kept key-value groups, ascending.
        channels: for each kept block, its kept MLP channels, ascending.
    """

    blocks: tuple[int, ...]
    key_value_groups: tuple[tuple[int, ...], ...]
    channels: tuple[tuple[int, ...], ...]

    @classmethod
    def everything(cls, shapes: Sequence[BlockShape]) -> KeptUnits:
        """All units of a model with these block shapes."""
        return cls(
            blocks=tuple(range(len(shapes))),
            key_value_groups=tuple(tuple(range(s.key_value_groups)) for s in shapes),
            channels=tuple(tuple(range(s.channels)) for s in shapes),
        )

    def shapes(self, shapes: Sequence[BlockShape]) -> tuple[BlockShape, ...]:
        """Shapes of the kept blocks after pruning."""
        widths = zip(self.blocks, self.key_value_groups, self.channels, strict=True)
        return tuple(replace(shapes[b], key_value_groups=len(g), channels=len(c)) for b, g, c in widths)

    def without_blocks(self, removed: Sequence[int]) -> KeptUnits:
        """The same widths without the removed blocks."""
        stay = [i for i, block in enumerate(self.blocks) if block not in set(removed)]
        return KeptUnits(
            blocks=tuple(self.blocks[i] for i in stay),
            key_value_groups=tuple(self.key_value_groups[i] for i in stay),
            channels=tuple(self.channels[i] for i in stay),
        )


def achieved_ratio(shapes: Sequence[BlockShape], kept: KeptUnits) -> float:
    """Share of the blocks' projection weights that pruning removes."""
    total = sum(shape.cost for shape in shapes)
    return 1 - sum(shape.cost for shape in kept.shapes(shapes)) / total


def cheapest_prefix(costs: np.ndarray, budget: float) -> int:
    """Number of leading units whose summed cost is nearest to the budget; of two equally near counts the larger."""
    totals = np.concatenate([[0], np.cumsum(costs)])
    distance = np.abs(totals - budget)
    return int(np.flatnonzero(distance <= distance.min() + 1e-6)[-1])


def check_ratio(ratio: float) -> None:
    """Raise InvalidRequest for a ratio outside [0, 1)."""
    if not RATIO.holds(ratio):
        raise InvalidRequest(f"ratio {shown(ratio)} is not possible: give a number of at least 0 and below 1")


def _refuse_unreachable(costs: np.ndarray, budget: float, total: int, what: str) -> None:
    """Raise InvalidRequest for a budget that exceeds the removable weights, or that is too small to remove a unit."""
    most = costs.sum()
    if budget > most + costs.max(initial=0) / 2:
        raise InvalidRequest(
            f"ratio {budget / total:.3g} is out of reach: {what} that may be removed hold {most / total:.3g} of the "
            f"weights; request at most {most / total:.3g}, protect fewer blocks or allow dropping whole sublayers"
        )
    if budget > 0 and budget < costs[:1].sum() / 2 * (1 - 1e-9):
        raise InvalidRequest(
            f"ratio {budget / total:.3g} removes nothing: the smallest unit holds {costs[0] / total:.3g} of the "
            f"weights; request at least {costs[0] / total / 2:.3g}, or use a method with finer units"
        )


def allocate_depth(
    shapes: Sequence[BlockShape], scores: Tensor, ratio: float, constraints: Constraints | None = None
) -> KeptUnits:
    """Remove the blocks with the lowest scores.

    Args:
        shapes: the blocks' shapes.
        scores: shape `(blocks,)`; higher = keep.
        ratio: share of the blocks' projection weights to remove.
        constraints: constraints of the allocation; at least one block is always kept.

    Raises:
        InvalidRequest: the ratio is outside [0, 1) or out of reach.
    """
    check_ratio(ratio)
    span = (constraints or Constraints()).removable(len(shapes))
    order = sorted(span, key=lambda block: (scores[block].item(), block))
    if len(span) == len(shapes):
        order = order[:-1]
    costs = np.array([shapes[block].cost for block in order], dtype=np.int64)
    total = sum(shape.cost for shape in shapes)
    _refuse_unreachable(costs, ratio * total, total, "the blocks")
    count = cheapest_prefix(costs, ratio * total)
    return KeptUnits.everything(shapes).without_blocks(order[:count])


def depth_count(shapes: Sequence[BlockShape], ratio: float, constraints: Constraints) -> int:
    """Number of blocks that a depth method removes, independent of the scores; where the blocks differ in cost, the
    first ones are counted.

    Raises:
        InvalidRequest: the ratio is outside [0, 1) or out of reach.
    """
    kept = allocate_depth(shapes, torch.zeros(len(shapes)), ratio, constraints)
    return len(shapes) - len(kept.blocks)


@dataclass(frozen=True)
class _Ladder:
    """The units of one kind in one block in ascending order of score, grouped into removal steps.

    Attributes:
        units: all units of the kind, lowest score first.
        ends: number of units removed after each step; units beyond the last step are kept.
        scores: mean score of each step, ascending.
        costs: projection weights of each step.
        weights: projection weights of all units, kept ones included.
    """

    units: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    costs: np.ndarray
    weights: int

    @classmethod
    def of(cls, scores: Tensor, unit_cost: int, keep_one: bool, multiple: int = 1) -> _Ladder:
        """Steps of `multiple` units; the first step is smaller where the width is not a multiple."""
        values = scores.double().numpy()
        units = np.argsort(values, kind="stable")
        first_step = len(units) % multiple or multiple
        ends = np.arange(first_step, len(units) - multiple * keep_one + 1, multiple)
        sizes = np.diff(ends, prepend=0)
        sums = np.diff(np.cumsum(values[units])[ends - 1], prepend=0.0)
        return cls(units, ends, sums / sizes, sizes * unit_cost, len(units) * unit_cost)

    def kept_after(self, steps: int) -> tuple[int, ...]:
        """The units that are kept after this number of steps."""
        return tuple(sorted(self.units[self.ends[steps - 1] if steps else 0 :].tolist()))


def allocate_width(
    shapes: Sequence[BlockShape],
    scores: ImportanceScores,
    ratio: float,
    constraints: Constraints | None = None,
) -> KeptUnits:
    """Remove the key-value groups and MLP channels with the lowest scores.

    All blocks and both kinds compete in one ranking (FLAP) or in separate ones, as `constraints.competition` sets.

    Args:
        shapes: the blocks' shapes.
        scores: comparable across blocks and kinds; higher = keep.
        ratio: share of the blocks' projection weights to remove.
        constraints: constraints of the allocation.

    Raises:
        InvalidRequest: the ratio is outside [0, 1) or out of reach.
    """
    check_ratio(ratio)
    constraints = constraints or Constraints()
    groups, channels = _ladders(shapes, scores, constraints)
    ladders = [*groups, *channels]
    total = sum(shape.cost for shape in shapes)
    goal = ratio * total
    _refuse_unreachable(_ranking(ladders)[1], goal, total, "the key-value groups and channels")
    steps = np.zeros(len(ladders), dtype=np.int64)
    removed = due = 0.0
    for places, share in _pools(shapes, ladders, constraints.competition):
        owner, costs = _ranking([ladders[place] for place in places])
        # The rounding error of one pool's budget is carried over to the next pool.
        due += goal * share
        count = cheapest_prefix(costs, due - removed)
        removed += costs[:count].sum()
        steps[places] = np.bincount(owner[:count], minlength=len(places))
    kept = [ladder.kept_after(count) for ladder, count in zip(ladders, steps.tolist(), strict=True)]
    return KeptUnits(tuple(range(len(shapes))), tuple(kept[: len(shapes)]), tuple(kept[len(shapes) :]))


def _ranking(ladders: Sequence[_Ladder]) -> tuple[np.ndarray, np.ndarray]:
    """Steps of several ladders, lowest score first: the index of the ladder and the cost of each step."""
    owner = np.repeat(np.arange(len(ladders)), [len(ladder.ends) for ladder in ladders])
    costs = np.concatenate([ladder.costs for ladder in ladders])
    # The sort is stable: among equal scores the earlier block is removed first, and a block's steps keep their order.
    order = np.argsort(np.concatenate([ladder.scores for ladder in ladders]), kind="stable")
    return owner[order], costs[order]


def _pools(
    shapes: Sequence[BlockShape], ladders: Sequence[_Ladder], competition: Competition
) -> list[tuple[list[int], float]]:
    """The ladders that compete with each other (attentions before MLPs), and each pool's share of the budget.

    A pool's share is its weights divided by the weights of all pools that can lose units.
    """
    blocks = range(len(shapes))
    pools = {
        "all": [[*range(len(ladders))]],
        "modules": [[*blocks], [*range(len(shapes), len(ladders))]],
        "blocks": [[block, len(shapes) + block] for block in blocks],
        "blocks_and_modules": [[kind * len(shapes) + block] for block in blocks for kind in (0, 1)],
    }[competition]
    able = [pool for pool in pools if any(len(ladders[place].ends) for place in pool)]
    weights = [sum(ladders[place].weights for place in pool) for pool in able]
    return [(pool, weight / sum(weights)) for pool, weight in zip(able, weights, strict=True)]


def _ladders(
    shapes: Sequence[BlockShape], scores: ImportanceScores, constraints: Constraints
) -> tuple[list[_Ladder], list[_Ladder]]:
    """The ladders of every block's key-value groups and channels; those of protected blocks have no steps."""
    assert scores.key_value_groups is not None
    assert scores.channels is not None
    touched, keep_one = constraints.removable(len(shapes)), not constraints.drop_sublayers
    groups, channels = [], []
    nothing = np.zeros(0, dtype=np.int64)
    for block, shape in enumerate(shapes):
        group = _Ladder.of(scores.key_value_groups[block], shape.group_cost, keep_one)
        channel = _Ladder.of(scores.channels[block], shape.channel_cost, keep_one, constraints.channel_multiple)
        if block not in touched:
            group, channel = (
                replace(ladder, ends=nothing, scores=nothing, costs=nothing) for ladder in (group, channel)
            )
        groups.append(group)
        channels.append(channel)
    return groups, channels


def allocate_uniform(
    shapes: Sequence[BlockShape],
    scores: ImportanceScores,
    ratio: float,
    group_counts: Sequence[int],
    constraints: Constraints | None = None,
) -> KeptUnits:
    """Give every block the same widths, as a stock class of transformers requires.

    The number of key-value groups is the member of `group_counts` that is nearest to the average number kept by
    `allocate_width` and that lets the channels reach the budget. Within a block the units with the lowest scores are
    removed.

    Args:
        shapes: the blocks' shapes, all equal.
        scores: higher = keep.
        ratio: share of the blocks' projection weights to remove.
        group_counts: numbers of key-value groups that the stock class accepts, the current number included.
        constraints: only `channel_multiple` applies; protected blocks are an error, since all widths are equal.

    Raises:
        InvalidRequest: the blocks differ, blocks are protected, or the ratio is out of reach.
    """
    check_ratio(ratio)
    constraints = constraints or Constraints()
    if len(set(shapes)) > 1:
        raise InvalidRequest(
            "uniform widths need blocks of equal shape and this model's blocks differ: leave out --uniform"
        )
    if constraints.protect_first or constraints.protect_last:
        raise InvalidRequest(
            "uniform widths and protected blocks exclude each other: leave out --uniform or the protected blocks"
        )
    free = allocate_width(shapes, scores, ratio, replace(constraints, channel_multiple=1))
    average = sum(map(len, free.key_value_groups)) / len(shapes)
    shape = shapes[0]
    widths = _uniform_widths(shape, ratio, average, group_counts, constraints.channel_multiple)
    assert scores.key_value_groups is not None
    assert scores.channels is not None
    return KeptUnits(
        blocks=tuple(range(len(shapes))),
        key_value_groups=tuple(_best(s, widths[0]) for s in scores.key_value_groups),
        channels=tuple(_best(s, widths[1]) for s in scores.channels),
    )


def _uniform_widths(
    shape: BlockShape, ratio: float, average: float, group_counts: Sequence[int], multiple: int
) -> tuple[int, int]:
    """Groups and channels per block: the group count nearest to `average` with which the channels reach the budget."""
    target = shape.cost * (1 - ratio)
    for groups in sorted(group_counts, key=lambda count: (abs(count - average), -count)):
        exact = (target - groups * shape.group_cost) / shape.channel_cost
        options = {*range(multiple, shape.channels + 1, multiple), shape.channels}
        channels = min(options, key=lambda width: (abs(width - exact), width))
        if abs(channels - exact) <= multiple / 2:
            return groups, channels
    raise InvalidRequest(
        f"ratio {ratio:g} is out of reach with uniform widths: the stock class accepts {sorted(group_counts)} "
        "key-value groups, and removing channels cannot reach the rest; request less, or leave out --uniform"
    )


def _best(scores: Tensor, count: int) -> tuple[int, ...]:
    units = np.argsort(scores.double().numpy(), kind="stable")
    return tuple(sorted(units[len(units) - count :].tolist()))
