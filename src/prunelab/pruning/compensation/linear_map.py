"""A linear map in place of a run of removed blocks (Shopkhoev et al. 2025, ReplaceMe).

With M what the MLP before the run adds to the residual stream, Y the stream beside it and L the stream behind the run,
all of the whole model over the calibration tokens, T is the least-squares solution of L ~ Y + M T. T is I + D with D
from ridge regression of L - Y - M on M, so that where M says nothing about L the stream goes on as it is. ReplaceMe's
own solution has no ridge, or one that draws T towards zero.

T is merged into that MLP's output projection. Where a norm stands behind the projection (Gemma-2), T stays a layer of
its own behind the norm, of hidden^2 weights, which the modelling file of the checkpoint holds; these are not counted in
the achieved ratio, as added biases are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prunelab.calibration.joint_moments import JointMoments
from prunelab.io.lazy import torch
from prunelab.pruning.compensation.projection import CompensatedProjection
from prunelab.pruning.compensation.ridge import solve
from prunelab.pruning.search.layerwise import Hidden, LayerwiseRunner

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import CalibrationSet
    from prunelab.models.families import Decoder
    from prunelab.pruning.allocation import KeptUnits


def removed_runs(decoder: Decoder, kept: KeptUnits) -> Iterator[tuple[int, int]]:
    """The kept block before each run of removed ones, and the run's last block.

    A run that nothing stands before, or a block without MLP, is passed over: nothing can be put in its place.
    """
    for before, after in zip(kept.blocks, (*kept.blocks[1:], len(decoder.shapes)), strict=True):
        if after > before + 1 and kept.channels[kept.blocks.index(before)]:
            yield before, after - 1


def linear_map(
    decoder: Decoder, kept: KeptUnits, calibration: CalibrationSet
) -> dict[tuple[int, str], CompensatedProjection]:
    """The output projection, or the map behind its norm, of every MLP that stands before a run of removed blocks.

    What is removed in width is not made up for.
    """
    runs = list(removed_runs(decoder, kept))
    if not runs:
        return {}
    walk = LayerwiseRunner.of(decoder, calibration)
    hidden, repairs = walk.start, {}
    starts, ends = dict(runs), {last: before for before, last in runs}
    said: Hidden = []
    stream: Hidden = []
    for block in range(max(ends) + 1):
        if block in starts:
            seen = list(walk.watch(block, hidden))
            said = [one.added[decoder.family.mlp.output_projection] for one in seen]
            hidden = stream = [one.output for one in seen if one.output is not None]
        else:
            hidden = walk.through(block, hidden)
        if block in ends:
            change = _change(walk, said, stream, hidden)
            repairs[ends[block], decoder.family.mlp.output_projection] = _merged(decoder, kept, ends[block], change)
    return repairs


def _change(walk: LayerwiseRunner, said: Hidden, stream: Hidden, behind: Hidden) -> Tensor:
    """D, shape `(hidden, hidden)`, float64, from moments about zero: T has no constant."""
    width = said[0].shape[-1]
    moments = JointMoments.none(width, width)
    for batch, (m, before, after) in enumerate(zip(said, stream, behind, strict=True)):
        moments.add(walk.counted(batch, m), walk.counted(batch, after) - walk.counted(batch, before))
    mean, count = moments.input_mean, moments.count
    return solve(
        moments.inputs + count * torch.outer(mean, mean),
        moments.cross + count * torch.outer(mean, moments.target_mean),
        count,
    )


def _merged(decoder: Decoder, kept: KeptUnits, block: int, change: Tensor) -> CompensatedProjection:
    layout = decoder.family.mlp
    units = kept.channels[kept.blocks.index(block)]
    own, bias = decoder.weight(block, layout.output_projection), decoder.bias(block, layout.output_projection)
    weight = own[:, layout.columns(decoder.shapes[block], units).to(own.device)]
    norm = decoder.family.residual_output(layout.output_projection)
    if norm != layout.output_projection:
        there = decoder.map_behind(block, norm)
        whole = torch.eye(len(change), dtype=torch.float64) if there is None else there.cpu().double()
        return CompensatedProjection(weight, bias, (whole + change @ whole).to(own.device, own.dtype))

    def mapped(parameter: Tensor) -> Tensor:
        values = parameter.cpu().double()
        return (values + change @ values).to(own.device, own.dtype)

    return CompensatedProjection(mapped(weight), None if bias is None else mapped(bias))
