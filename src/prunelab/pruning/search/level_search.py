"""A level for every sublayer within one budget: sensitivities, dynamic programming, and local search.

"Loss" here is `PrefixCachedLoss.loss` against the dense model, measured on held-out text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import np
from prunelab.pruning.allocation import Constraints, KeptUnits
from prunelab.pruning.search.levels import SublayerLevels, sublayer_levels
from prunelab.pruning.search.prefix_reuse import BlockChoice, PrefixCachedLoss

if TYPE_CHECKING:
    from prunelab.pruning.methods.base import Budget, MethodInputs
    from prunelab.pruning.search.layerwise import ProjectionOverride

BINS = 800
"""Minimum number of bins into which dynamic programming divides the blocks' weights."""

BINS_A_STEP = 3.5
"""Minimum number of bins of the smallest level: a level smaller than a bin would appear to remove nothing."""

BINS_A_SUBLAYER = 400
"""Maximum number of bins per sublayer."""

TRIES = 24
"""Maximum number of exchanges that local search tries."""


@dataclass(frozen=True)
class SensitivityProfile:
    """Losses of pruning single sublayers.

    Attributes:
        sublayers: sublayers that may be pruned, with their levels.
        losses: for each sublayer, the loss at each level with all other sublayers unpruned.
        trunk: computes losses.
    """

    sublayers: Sequence[SublayerLevels]
    losses: Sequence[np.ndarray]
    trunk: PrefixCachedLoss

    @classmethod
    def of(cls, evidence: MethodInputs, constraints: Constraints) -> SensitivityProfile:
        """Prune every sublayer to each of its levels and measure each alone."""
        decoder = evidence.decoder
        span = constraints.removable(len(decoder.shapes))
        places = [(block, layout) for block, layout, _ in decoder.writers() if block in span]
        sublayers = [
            sublayer_levels(decoder, block, layout, moments, constraints.channel_multiple)
            for (block, layout), moments in zip(places, evidence.second_moments(places), strict=True)
        ]
        trunk = PrefixCachedLoss(decoder, evidence.held_out, against_whole=True)
        trunk.set_reference(choices(sublayers, [0] * len(sublayers), len(decoder.shapes)))
        return cls(sublayers, [_losses(trunk, sublayers, place) for place in range(len(sublayers))], trunk)


def _losses(trunk: PrefixCachedLoss, sublayers: Sequence[SublayerLevels], place: int) -> np.ndarray:
    """Losses of one sublayer's levels: some are measured, mostly small ones; the others are interpolated by cost."""
    levels = sublayers[place].levels
    last = len(levels) - 1
    at, measured = sorted({0, last, *(level for level in (1, 2, 4, 8, 12) if level < last)}), [0.0]
    for level in at[1:]:
        chosen = [0] * len(sublayers)
        chosen[place] = level
        measured.append(trunk.loss(choices(sublayers, chosen, len(trunk.walk.decoder.shapes))))
    costs = np.array([level.cost for level in levels], dtype=float)
    between: np.ndarray = np.interp(costs, costs[at], np.array(measured))
    return between


def choices(sublayers: Sequence[SublayerLevels], chosen: Sequence[int], blocks: int) -> list[BlockChoice]:
    """The choice for each block at these levels."""
    block_levels: list[dict[str, int]] = [{} for _ in range(blocks)]
    overrides: list[dict[str, ProjectionOverride]] = [{} for _ in block_levels]
    removed_counts = [0] * len(block_levels)
    for sublayer, level in zip(sublayers, chosen, strict=True):
        if level:
            repaired = sublayer.levels[level].written
            assert repaired is not None
            block_levels[sublayer.block][sublayer.layout.output_projection] = level
            overrides[sublayer.block][sublayer.layout.output_projection] = repaired
            removed_counts[sublayer.block] += not sublayer.levels[level].kept
    return [
        BlockChoice(tuple(sorted(levels.items())), writers, count == 2)
        for levels, writers, count in zip(block_levels, overrides, removed_counts, strict=True)
    ]


@dataclass
class LevelSearch:
    """Levels of all sublayers, their measured losses, and the budget.

    Attributes:
        evidence: the model and the held-out windows.
        sublayers: sublayers that may be pruned.
        losses: for each sublayer, the loss at each level.
        goal: number of projection weights to remove.
        multiple: MLP widths are a multiple of this.
        trunk: computes losses.
        measured: number of measured combinations of several sublayers.
    """

    evidence: MethodInputs
    sublayers: Sequence[SublayerLevels]
    losses: Sequence[np.ndarray]
    goal: float
    multiple: int
    trunk: PrefixCachedLoss
    measured: int = 0

    @classmethod
    def of(cls, evidence: MethodInputs, budget: Budget) -> tuple[LevelSearch, float]:
        """A search on the sensitivities that all ratios share, and the number of passes run before this ratio."""
        constraints = budget.constraints
        is_new = ("survey", constraints) not in evidence.shared
        profile = evidence.shared.once(("survey", constraints), lambda: SensitivityProfile.of(evidence, constraints))
        goal, before = budget.ratio * evidence.decoder.cost, 0.0 if is_new else profile.trunk.passes
        multiple = constraints.channel_multiple
        return cls(evidence, profile.sublayers, profile.losses, goal, multiple, profile.trunk), before

    def run(self) -> KeptUnits:
        """Units kept by dynamic programming, then local search, then rounding to the budget."""
        return self._round_to_budget(self._local_search(self._cheapest()))

    def _loss(self, chosen: Sequence[int]) -> float:
        self.measured += 1
        return self.trunk.loss(self._choices(chosen))

    def _choices(self, chosen: Sequence[int]) -> list[BlockChoice]:
        return choices(self.sublayers, chosen, len(self.evidence.decoder.shapes))

    def _cheapest(self) -> list[int]:
        """The levels of least summed loss that remove at least the goal, by dynamic programming over binned costs."""
        total, parts = self.evidence.decoder.cost, self._bins()
        goal = int(np.ceil(self.goal / total * parts - 1e-9))
        best = np.full(goal + 1, np.inf)
        best[0] = 0.0
        taken: list[np.ndarray] = []
        for sublayer, losses in zip(self.sublayers, self.losses, strict=True):
            bins = [int(level.cost / total * parts + 1e-9) for level in sublayer.levels]
            after, how = np.full(goal + 1, np.inf), np.zeros((goal + 1, 2), dtype=np.int64)
            for level, (width, loss) in enumerate(zip(bins, losses.tolist(), strict=True)):
                for have in np.flatnonzero(np.isfinite(best)).tolist():
                    reached = min(goal, have + width)
                    if best[have] + loss < after[reached]:
                        after[reached], how[reached] = best[have] + loss, (level, have)
            best = after
            taken.append(how)
        if not np.isfinite(best[goal]):
            raise InvalidRequest("the ratio is out of reach: protect fewer blocks, or request less")
        chosen, at = [], goal
        for how in reversed(taken):
            level, at = how[at]
            chosen.append(int(level))
        return chosen[::-1]

    def _bins(self) -> int:
        smallest = min(level.cost for sublayer in self.sublayers for level in sublayer.levels if level.cost)
        fine = int(np.ceil(BINS_A_STEP * self.evidence.decoder.cost / smallest))
        return max(BINS, min(fine, BINS_A_SUBLAYER * len(self.sublayers)))

    def _local_search(self, chosen: list[int]) -> list[int]:
        """Try the exchanges with the lowest estimated loss, and keep those that lower the measured loss."""
        loss = self.trunk.set_reference(self._choices(chosen))
        tried: set[tuple[int, ...]] = {tuple(chosen)}
        while len(tried) <= TRIES:
            options = [other for other in self._neighbours(chosen) if tuple(other) not in tried]
            if not options:
                break
            other = min(options, key=self._promised)
            tried.add(tuple(other))
            value = self._loss(other)
            if value < loss - 1e-6:
                chosen, loss = other, self.trunk.set_reference(self._choices(other))
        return chosen

    def _promised(self, chosen: Sequence[int]) -> float:
        return sum(float(losses[level]) for losses, level in zip(self.losses, chosen, strict=True))

    def _neighbours(self, chosen: list[int]) -> Iterator[list[int]]:
        """Choices in which one sublayer is pruned one step less and another one more."""
        for giver in range(len(chosen)):
            for taker in range(len(chosen)):
                if giver == taker or not chosen[taker]:
                    continue
                other = list(chosen)
                other[taker] -= 1
                while self._removed(other) < self.goal - self._step(other) / 2:
                    if other[giver] + 1 >= len(self.sublayers[giver].levels):
                        break
                    other[giver] += 1
                else:
                    if other[giver] > chosen[giver] and self._leaves_something(other):
                        yield other

    def _step(self, chosen: Sequence[int]) -> int:
        return max(shape.cost for shape in self.evidence.decoder.shapes) // (2 * len(chosen))

    def _leaves_something(self, chosen: Sequence[int]) -> bool:
        return any(sub.levels[level].kept for sub, level in zip(self.sublayers, chosen, strict=True))

    def _removed(self, chosen: Sequence[int]) -> int:
        return sum(sub.levels[level].cost for sub, level in zip(self.sublayers, chosen, strict=True))

    def _round_to_budget(self, chosen: Sequence[int]) -> KeptUnits:
        """The levels' units, with channels restored or removed until the removed weights are nearest to the goal."""
        counts = [len(sub.levels[level].kept) for sub, level in zip(self.sublayers, chosen, strict=True)]
        removed = self._removed(chosen)
        mlps = [place for place, sub in enumerate(self.sublayers) if sub.layout.unit == "channel"]
        while mlps:
            place, sign = self._next_step(mlps, counts, removed)
            if place is None:
                break
            width = self._stepped(place, counts[place], sign)
            removed -= (width - counts[place]) * self._channel_cost(place)
            counts[place] = width
        return self._kept(counts)

    def _next_step(self, mlps: Sequence[int], counts: Sequence[int], removed: float) -> tuple[int | None, int]:
        """The next MLP to change: the most pruned one if channels are restored, the least pruned one if removed; and 1
        to restore channels or -1 to remove them."""
        sign = 1 if removed > self.goal else -1

        def may(place: int) -> bool:
            width = self._stepped(place, counts[place], sign)
            after = removed - (width - counts[place]) * self._channel_cost(place)
            nearer = abs(after - self.goal) < abs(removed - self.goal) - 1e-9
            room = 0 < counts[place] < width if sign > 0 else width > 0
            return nearer and room

        able = [place for place in mlps if may(place)]
        if not able:
            return None, sign
        started = [place for place in able if counts[place] < len(self.sublayers[place].order)]
        return max(started or able, key=lambda p: (sign * (len(self.sublayers[p].order) - counts[p]), -p)), sign

    def _stepped(self, place: int, count: int, sign: int) -> int:
        """The next larger or smaller width of an MLP."""
        if sign < 0:
            return (count - 1) // self.multiple * self.multiple
        return min((count // self.multiple + 1) * self.multiple, len(self.sublayers[place].order))

    def _channel_cost(self, place: int) -> int:
        return self.evidence.decoder.shapes[self.sublayers[place].block].channel_cost

    def _kept(self, counts: Sequence[int]) -> KeptUnits:
        shapes = self.evidence.decoder.shapes
        everything = KeptUnits.everything(shapes)
        groups, channels = list(everything.key_value_groups), list(everything.channels)
        for sublayer, count in zip(self.sublayers, counts, strict=True):
            units = tuple(sorted(sublayer.order[len(sublayer.order) - count :]))
            (groups if sublayer.layout.unit == "key_value_group" else channels)[sublayer.block] = units
        empty = [block for block in everything.blocks if not groups[block] and not channels[block]]
        if len(empty) == len(everything.blocks):
            raise InvalidRequest("no block would be left: request a lower ratio")
        return KeptUnits(everything.blocks, tuple(groups), tuple(channels)).without_blocks(empty)
