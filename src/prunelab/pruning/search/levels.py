"""How far one sublayer can be cut: its units in the order in which they go, and its projection repaired at each level.

The order is the optimal brain surgeon's for whole columns (Hassibi and Stork 1993; Kurtic et al. 2023 for structures):
at each step the unit goes whose absence, made up for by all that are left, adds least to the squared error of the
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
"""Levels of an MLP between whole and gone."""

ELIMINATIONS = 512
"""At most so many steps of elimination; wider projections lose several units at once."""


@dataclass(frozen=True)
class Level:
    """One sublayer, cut so far.

    Attributes:
        kept: its units, ascending.
        cost: projection weights that are gone.
        written: the repaired output projection; None where nothing is removed.
    """

    kept: tuple[int, ...]
    cost: int
    written: ProjectionOverride | None


@dataclass(frozen=True)
class SublayerLevels:
    """The levels of one block's attention or MLP, from whole to gone, and the order in which its units go."""

    block: int
    layout: UnitLayout
    levels: tuple[Level, ...]
    order: tuple[int, ...]


def elimination_order(weight: Tensor, moments: JointMoments, units: int) -> tuple[int, ...]:
    """Units in the order in which they go.

    Args:
        weight: the output projection's, shape `(hidden, channels)`.
        moments: of its inputs.
        units: how many there are; each owns as many neighbouring channels.
    """
    size = weight.shape[1] // units
    added = ridge(moments.inputs, moments.count) or 1.0
    inverse = torch.cholesky_inverse(factored(moments.inputs.clone(), added))
    left, w = torch.arange(units), weight.cpu().double()
    order: list[int] = []
    while len(left):
        lowest = _costs(w, inverse, size, left).argsort(stable=True)[: max(1, units // ELIMINATIONS)]
        order += left[lowest].tolist()
        gone = (left[lowest, None] * size + torch.arange(size)).flatten()
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[lowest] = False
        left = left[stay]
        # Rows and columns of what is gone stay where they are, as zeros: copying the others together would cost more.
        solved = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
        w = torch.addmm(w, w[:, gone], solved, alpha=-1)
        inverse.addmm_(inverse[:, gone], solved, alpha=-1)
    return tuple(order)


def _costs(weight: Tensor, inverse: Tensor, size: int, left: Tensor) -> Tensor:
    """What the absence of each unit that is left adds to the squared error, shape `(units left,)`."""
    if size == 1:
        return weight[:, left].square().sum(dim=0) / inverse.diagonal()[left].clamp_min(1e-300)
    places = left[:, None] * size + torch.arange(size)
    own = inverse[places[:, :, None], places[:, None, :]]
    columns = weight[:, places].permute(1, 2, 0)
    costs: Tensor = (columns * torch.linalg.solve(own, columns)).sum(dim=(1, 2))
    return costs


def sublayer_levels(
    decoder: Decoder, block: int, layout: UnitLayout, moments: JointMoments, multiple: int
) -> SublayerLevels:
    """Cut a sublayer of the whole model to every level.

    Args:
        decoder: the model.
        block: the block.
        layout: which sublayer.
        moments: of all inputs of its output projection.
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
