"""Pruning levels of one sublayer: the order in which its units are removed, and its compensated projection per level.

The order is the optimal brain surgeon's for whole columns (Hassibi and Stork 1993; Kurtic et al. 2023 for structures):
each step removes the unit whose removal, compensated by all remaining ones, adds least to the squared error of the
projection's output, tr(W_S (H_SS)^-1 W_S^T) with H the inverse of the inputs' covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from prunelab.io.lazy import torch
from prunelab.pruning.compensation.projection import masked
from prunelab.pruning.compensation.ridge import factored, ridge
from prunelab.pruning.compensation.second_moments import repaired

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration.joint_moments import JointMoments
    from prunelab.models.families import Decoder
    from prunelab.models.layout import UnitLayout
    from prunelab.pruning.search.layerwise import ProjectionOverride

STEPS = 16
"""Steps between an unpruned and a removed MLP."""

ELIMINATIONS = 512
"""Maximum number of elimination steps; wider projections lose several units per step."""


@dataclass(frozen=True)
class Level:
    """One level of a sublayer.

    Attributes:
        kept: kept units, ascending.
        cost: number of removed projection weights.
        written: the compensated output projection; None if nothing is removed.
    """

    kept: tuple[int, ...]
    cost: int
    written: ProjectionOverride | None


@dataclass(frozen=True)
class SublayerLevels:
    """Levels of one block's attention or MLP, from unpruned to removed, and the removal order of its units."""

    block: int
    layout: UnitLayout
    levels: tuple[Level, ...]
    order: tuple[int, ...]


def elimination_order(weight: Tensor, moments: JointMoments, units: int) -> tuple[int, ...]:
    """Units in the order of their removal.

    Args:
        weight: weight of the output projection, shape `(hidden, channels)`.
        moments: moments of its inputs.
        units: number of units; each has the same number of adjacent channels.
    """
    size = weight.shape[1] // units
    added = ridge(moments.inputs, moments.count) or 1.0
    inverse = torch.cholesky_inverse(factored(moments.inputs.clone(), added))
    left, w = torch.arange(units), weight.cpu().double()
    order: list[int] = []
    while len(left):
        lowest = _costs(w, inverse, size, left).argsort(stable=True)[: max(1, units // ELIMINATIONS)]
        order += left[lowest].tolist()
        removed = (left[lowest, None] * size + torch.arange(size)).flatten()
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[lowest] = False
        left = left[stay]
        # Rows and columns of removed units stay in place as zeros: compacting the others would cost more.
        solved = torch.linalg.solve(inverse[removed][:, removed], inverse[removed])
        w = torch.addmm(w, w[:, removed], solved, alpha=-1)
        inverse.addmm_(inverse[:, removed], solved, alpha=-1)
    return tuple(order)


def _costs(weight: Tensor, inverse: Tensor, size: int, left: Tensor) -> Tensor:
    """Increase of the squared error by the removal of each remaining unit, shape `(units left,)`."""
    if size == 1:
        return weight[:, left].square().sum(dim=0) / inverse.diagonal()[left].clamp_min(1e-300)
    places = left[:, None] * size + torch.arange(size)
    submatrices = inverse[places[:, :, None], places[:, None, :]]
    columns = weight[:, places].permute(1, 2, 0)
    costs: Tensor = (columns * torch.linalg.solve(submatrices, columns)).sum(dim=(1, 2))
    return costs


def sublayer_levels(
    decoder: Decoder, block: int, layout: UnitLayout, moments: JointMoments, multiple: int
) -> SublayerLevels:
    """Prune a sublayer of the dense model to every level.

    Args:
        decoder: the dense model.
        block: index of the block.
        layout: the sublayer.
        moments: moments of all inputs of its output projection.
        multiple: MLP widths are a multiple of this.
    """
    shape = decoder.shapes[block]
    units = shape.units(layout.part)
    order = elimination_order(decoder.weight(block, layout.output_projection), moments, units)
    step = multiple if layout.unit == "channel" else 1
    cost = shape.channel_cost if layout.unit == "channel" else shape.group_cost
    widths = {round(Fraction(units * left, STEPS) / step) * step for left in range(1, STEPS)}
    levels = [Level(tuple(range(units)), 0, None)]
    for width in sorted(widths - {0}, reverse=True):
        if width < units:
            kept = tuple(sorted(order[units - width :]))
            repair = repaired(decoder, block, layout, kept, moments)
            levels.append(Level(kept, (units - width) * cost, masked(decoder, block, layout, kept, repair)))
    nothing = masked(decoder, block, layout, (), repaired(decoder, block, layout, (), moments))
    levels.append(Level((), units * cost, nothing))
    return SublayerLevels(block, layout, tuple(levels), order)
