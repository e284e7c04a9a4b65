"""One budget, one ranking: from importance to the units that are kept.

Every removable unit has a score and a cost in projection weights. Units are removed in ascending order of score, and
the cut is made where the removed weights come nearest to the budget; so the achieved ratio is within half the largest
eligible unit (or rounding step) of the requested one.
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
    """What an allocation must respect.

    Attributes:
        protect_first: blocks at the beginning that are left whole.
        protect_last: blocks at the end that are left whole.
        channel_multiple: pruned MLP widths are a multiple of this (hardware likes 64 or 128); an MLP that loses
            nothing keeps its width.
        drop_sublayers: a block may lose its whole attention or its whole MLP; otherwise one key-value group and one
            step of channels stay.
        competition: which units compete for one budget in width: all of them; attentions apart from MLPs, each losing
            the same share; every block by itself; or every block's attention and MLP by itself. FLAP's code calls the
            first, second and last AL-AM, AL-MM and UL-UM.

    Raises:
        InvalidRequest: one of them is none of these.
    """

    protect_first: int = 0
    protect_last: int = 0
    channel_multiple: int = 1
    drop_sublayers: bool = False
    competition: Competition = "all"

    def __post_init__(self) -> None:
        """Refuse what a caller from Python can get wrong."""
        check_all(vars(self), CONSTRAINTS)
        if self.competition not in get_args(Competition):
            raise UnknownName("competition", self.competition, get_args(Competition))

    def removable(self, blocks: int) -> range:
        """The blocks that may be touched.

        Raises:
            InvalidRequest: none is left.
        """
        span = range(self.protect_first, blocks - self.protect_last)
        if not span:
            raise InvalidRequest(
                f"protecting the first {self.protect_first} and the last {self.protect_last} of {blocks} blocks leaves "
                "nothing to prune: protect fewer"
            )
        return span


@dataclass(frozen=True)
class KeptUnits:
    """What stays, in indices of the model that is pruned.

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
        """Nothing is removed."""
        return cls(
            blocks=tuple(range(len(shapes))),
            key_value_groups=tuple(tuple(range(s.key_value_groups)) for s in shapes),
            channels=tuple(tuple(range(s.channels)) for s in shapes),
        )

    def shapes(self, shapes: Sequence[BlockShape]) -> tuple[BlockShape, ...]:
        """The widths of the kept blocks after the cut."""
        widths = zip(self.blocks, self.key_value_groups, self.channels, strict=True)
        return tuple(replace(shapes[b], key_value_groups=len(g), channels=len(c)) for b, g, c in widths)

    def without_blocks(self, removed: Sequence[int]) -> KeptUnits:
        """The same widths with some blocks gone."""
        stay = [i for i, block in enumerate(self.blocks) if block not in set(removed)]
        return KeptUnits(
            blocks=tuple(self.blocks[i] for i in stay),
            key_value_groups=tuple(self.key_value_groups[i] for i in stay),
            channels=tuple(self.channels[i] for i in stay),
        )


def achieved_ratio(shapes: Sequence[BlockShape], kept: KeptUnits) -> float:
    """Share of the blocks' projection weights that the cut removes."""
    whole = sum(shape.cost for shape in shapes)
    return 1 - sum(shape.cost for shape in kept.shapes(shapes)) / whole


def cheapest_prefix(costs: np.ndarray, budget: float) -> int:
    """How many units, taken in order, come nearest to the budget; of two equally near counts the larger."""
    totals = np.concatenate([[0], np.cumsum(costs)])
    distance = np.abs(totals - budget)
    return int(np.flatnonzero(distance <= distance.min() + 1e-6)[-1])


def check_ratio(ratio: float) -> None:
    """Refuse a ratio outside [0, 1)."""
    if not RATIO.holds(ratio):
        raise InvalidRequest(f"ratio {shown(ratio)} is not possible: give a share from 0 up to, not including, 1")


def _refuse_unreachable(costs: np.ndarray, budget: float, total: int, what: str) -> None:
    """Refuse a budget beyond what may be removed, or one so small that nothing would be."""
    most = costs.sum()
    if budget > most + costs.max(initial=0) / 2:
        raise InvalidRequest(
            f"ratio {budget / total:.3g} is out of reach: {what} that may be removed hold {most / total:.3g} of the "
            f"weights; ask for at most {most / total:.3g}, protect fewer blocks or allow dropping whole sublayers"
        )
    if budget > 0 and budget < costs[:1].sum() / 2 * (1 - 1e-9):
        raise InvalidRequest(
            f"ratio {budget / total:.3g} removes nothing: the smallest step here is {costs[0] / total:.3g}; ask for at "
            f"least {costs[0] / total / 2:.3g}, or use a method with finer units"
        )


def allocate_depth(
    shapes: Sequence[BlockShape], scores: Tensor, ratio: float, constraints: Constraints | None = None
) -> KeptUnits:
    """Remove the blocks of lowest score.

    Args:
        shapes: the blocks' widths.
        scores: shape `(blocks,)`, higher = keep.
        ratio: share of the blocks' projection weights to remove.
        constraints: what must be respected; one block always stays.

    Raises:
        InvalidRequest: the ratio is outside [0, 1) or cannot be reached.
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
    """How many blocks a depth method removes, whichever they are; the first are counted where they are not alike.

    Raises:
        InvalidRequest: the ratio is outside [0, 1) or cannot be reached.
    """
    kept = allocate_depth(shapes, torch.zeros(len(shapes)), ratio, constraints)
    return len(shapes) - len(kept.blocks)


@dataclass(frozen=True)
class _Ladder:
    """The units of one kind in one block, lowest first, in the steps in which they may go.

    Attributes:
        units: all of the block's units of the kind, lowest score first.
        ends: how many of them have gone after each step; those beyond the last stay.
        scores: each step's mean score, ascending.
        costs: each step's projection weights.
        weights: projection weights of all its units, those that stay among them.
    """

    units: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    costs: np.ndarray
    weights: int

    @classmethod
    def of(cls, scores: Tensor, unit_cost: int, keep_one: bool, multiple: int = 1) -> _Ladder:
        """Steps of `multiple` units, the first taking what makes the width a multiple."""
        values = scores.double().numpy()
        units = np.argsort(values, kind="stable")
        first = len(units) % multiple or multiple
        ends = np.arange(first, len(units) - multiple * keep_one + 1, multiple)
        sizes = np.diff(ends, prepend=0)
        sums = np.diff(np.cumsum(values[units])[ends - 1], prepend=0.0)
        return cls(units, ends, sums / sizes, sizes * unit_cost, len(units) * unit_cost)

    def kept_after(self, steps: int) -> tuple[int, ...]:
        """The units that stay when so many steps are taken."""
        return tuple(sorted(self.units[self.ends[steps - 1] if steps else 0 :].tolist()))


def allocate_width(
    shapes: Sequence[BlockShape],
    scores: ImportanceScores,
    ratio: float,
    constraints: Constraints | None = None,
) -> KeptUnits:
    """Remove key-value groups and MLP channels of lowest score, all blocks and both kinds in one ranking (FLAP), or
    apart, as the constraints' competition says.

    Args:
        shapes: the blocks' widths.
        scores: comparable over blocks and kinds, higher = keep.
        ratio: share of the blocks' projection weights to remove.
        constraints: what must be respected.

    Raises:
        InvalidRequest: the ratio is outside [0, 1) or cannot be reached.
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
        # What one pool's whole units left of its budget, or took too much, is the next one's.
        due += goal * share
        count = cheapest_prefix(costs, due - removed)
        removed += costs[:count].sum()
        steps[places] = np.bincount(owner[:count], minlength=len(places))
    kept = [ladder.kept_after(count) for ladder, count in zip(ladders, steps.tolist(), strict=True)]
    return KeptUnits(tuple(range(len(shapes))), tuple(kept[: len(shapes)]), tuple(kept[len(shapes) :]))


def _ranking(ladders: Sequence[_Ladder]) -> tuple[np.ndarray, np.ndarray]:
    """The steps of several ladders, lowest score first: which ladder each belongs to, and its cost."""
    owner = np.repeat(np.arange(len(ladders)), [len(ladder.ends) for ladder in ladders])
    costs = np.concatenate([ladder.costs for ladder in ladders])
    # A stable sort: of equal scores the earlier block goes first, and within a block its own order holds.
    order = np.argsort(np.concatenate([ladder.scores for ladder in ladders]), kind="stable")
    return owner[order], costs[order]


def _pools(
    shapes: Sequence[BlockShape], ladders: Sequence[_Ladder], competition: Competition
) -> list[tuple[list[int], float]]:
    """The ladders that compete with each other, all attentions' before all MLPs', and their share of the budget.

    A pool's share is that of its weights among those of all pools that may lose something.
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
    """Of every block: its key-value groups and its channels; a protected block's have no steps."""
    assert scores.key_value_groups is not None
    assert scores.channels is not None
    touched, keep_one = constraints.removable(len(shapes)), not constraints.drop_sublayers
    groups, channels = [], []
    nothing = np.zeros(0, dtype=np.int64)
    for block, shape in enumerate(shapes):
        group = _Ladder.of(scores.key_value_groups[block], shape.group_cost, keep_one)
        channel = _Ladder.of(scores.channels[block], shape.channel_cost, keep_one, constraints.channel_multiple)
        if block not in touched:
            group, channel = (replace(one, ends=nothing, scores=nothing, costs=nothing) for one in (group, channel))
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
    """Give every block the same widths, as a stock class of transformers needs them.

    The number of key-value groups is the one in `group_counts` nearest to what the free ranking keeps on average and
    with which the budget can be met; channels make up the rest of the budget. Within a block the lowest units go.

    Args:
        shapes: the blocks' widths, all alike.
        scores: higher = keep.
        ratio: share of the blocks' projection weights to remove.
        group_counts: numbers of key-value groups that the stock class accepts; the present one must be among them.
        constraints: of these `channel_multiple` is respected; a protected block cannot be, all widths being alike.

    Raises:
        InvalidRequest: the blocks differ already, blocks are protected, or the ratio cannot be reached.
    """
    check_ratio(ratio)
    constraints = constraints or Constraints()
    if len(set(shapes)) > 1:
        raise InvalidRequest("uniform widths need a model whose blocks are alike; this one has widths of its own")
    if constraints.protect_first or constraints.protect_last:
        raise InvalidRequest("uniform widths and protected blocks exclude each other: drop one of the two options")
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
    """Groups and channels of every block: first choice by nearness to `average`, channels by the budget."""
    target = shape.cost * (1 - ratio)
    for groups in sorted(group_counts, key=lambda count: (abs(count - average), -count)):
        exact = (target - groups * shape.group_cost) / shape.channel_cost
        options = {*range(multiple, shape.channels + 1, multiple), shape.channels}
        channels = min(options, key=lambda width: (abs(width - exact), width))
        if abs(channels - exact) <= multiple / 2:
            return groups, channels
    raise InvalidRequest(
        f"ratio {ratio:g} is out of reach with uniform widths: the stock class accepts {sorted(group_counts)} "
        "key-value groups and the MLP cannot make up the rest; ask for less, or leave out --uniform"
    )


def _best(scores: Tensor, count: int) -> tuple[int, ...]:
    units = np.argsort(scores.double().numpy(), kind="stable")
    return tuple(sorted(units[len(units) - count :].tolist()))
