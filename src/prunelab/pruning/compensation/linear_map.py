"""A linear map in place of a run of removed blocks (Shopkhoev et al. 2025, ReplaceMe).

Let M be what the MLP before the run adds to the residual stream, Y the residual stream without M, and L the residual
stream after the run, all of the dense model over the calibration tokens. T is the least-squares solution of
L ~ Y + M T. T is I + D with D from ridge regression of L - Y - M on M
(`prunelab.pruning.compensation.ridge`), so that the ridge draws T towards the identity; the paper's
own solution has no ridge, or one that draws T towards zero.

T is merged into that MLP's output projection. Where a norm follows the projection (Gemma-2), T stays a separate layer
after the norm, with hidden^2 weights, in the modelling file of the checkpoint; like added biases, these weights are not
counted in the achieved ratio.
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
    """For each run of removed blocks, the kept block before it and the run's last block.

    A run is skipped if no kept block precedes it or the preceding block has no MLP: no map can replace it.
    """
    for before, after in zip(kept.blocks, (*kept.blocks[1:], len(decoder.shapes)), strict=True):
        if after > before + 1 and kept.channels[kept.blocks.index(before)]:
            yield before, after - 1


def linear_map(
    decoder: Decoder, kept: KeptUnits, calibration: CalibrationSet
) -> dict[tuple[int, str], CompensatedProjection]:
    """For every run of removed blocks, the output projection of the MLP before it, or the map after that MLP's norm.

    Removed key-value groups and channels are not compensated.
    """
    runs = list(removed_runs(decoder, kept))
    if not runs:
        return {}
    walk = LayerwiseRunner.of(decoder, calibration)
    hidden, repairs = walk.start, {}
    starts, ends = dict(runs), {last: before for before, last in runs}
    mlp_output: Hidden = []
    stream: Hidden = []
    for block in range(max(ends) + 1):
        if block in starts:
            batches = list(walk.watch(block, hidden))
            mlp_output = [activations.added[decoder.family.mlp.output_projection] for activations in batches]
            hidden = stream = [activations.output for activations in batches if activations.output is not None]
        else:
            hidden = walk.through(block, hidden)
        if block in ends:
            change = _change(walk, mlp_output, stream, hidden)
            repairs[ends[block], decoder.family.mlp.output_projection] = _merged(decoder, kept, ends[block], change)
    return repairs


def _change(walk: LayerwiseRunner, mlp_output: Hidden, stream: Hidden, target: Hidden) -> Tensor:
    """D, shape `(hidden, hidden)`, float64, from uncentred moments: T has no constant term."""
    width = mlp_output[0].shape[-1]
    moments = JointMoments.none(width, width)
    for batch, (m, before, after) in enumerate(zip(mlp_output, stream, target, strict=True)):
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
    weight_before, bias = decoder.weight(block, layout.output_projection), decoder.bias(block, layout.output_projection)
    weight = weight_before[:, layout.columns(decoder.shapes[block], units).to(weight_before.device)]
    norm = decoder.family.residual_output(layout.output_projection)
    if norm != layout.output_projection:
        earlier_map = decoder.map_behind(block, norm)
        map_ = torch.eye(len(change), dtype=torch.float64) if earlier_map is None else earlier_map.cpu().double()
        return CompensatedProjection(weight, bias, (map_ + change @ map_).to(weight_before.device, weight_before.dtype))

    def mapped(parameter: Tensor) -> Tensor:
        values = parameter.cpu().double()
        return (values + change @ values).to(weight_before.device, weight_before.dtype)

    return CompensatedProjection(mapped(weight), None if bias is None else mapped(bias))
