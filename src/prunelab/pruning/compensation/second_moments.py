"""Second moments of the inputs of output projections, and the least-squares projections computed from them.

The second moments of a projection's inputs over the calibration tokens determine, for any kept columns, the weights
with which these best reproduce the contribution of the removed ones. The moments of the dense model are collected in
the calibration pass if they fit (`prunelab.calibration.cache`), otherwise in a separate pass that holds one
projection's moments at a time. The sums are equal, bit for bit where no token is masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prunelab.calibration.joint_moments import JointMoments
from prunelab.models.layout import UnitLayout
from prunelab.pruning.compensation.projection import CompensatedProjection
from prunelab.pruning.compensation.ridge import fit
from prunelab.pruning.search.layerwise import Hidden, LayerwiseRunner

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import ActivationStatistics, CalibrationSet
    from prunelab.models.families import Decoder

ProjectionPosition = tuple[int, UnitLayout]
"""A block and one of its sublayers."""


def second_moments(
    decoder: Decoder,
    places: Sequence[ProjectionPosition],
    calibration: CalibrationSet,
    statistics: ActivationStatistics | None,
) -> Iterator[JointMoments]:
    """Second moments of all inputs of some output projections of the dense model, one after the other, without targets.

    Args:
        decoder: the dense model; it may be streamed.
        places: the projections, in ascending order of their blocks.
        calibration: the calibration tokens.
        statistics: second moments of the same tokens in them are returned without a pass.
    """
    if statistics is not None and statistics.second and statistics.are_of(calibration.fingerprint):
        for block, layout in places:
            yield statistics.second[block, layout.unit]
        return
    walk = LayerwiseRunner.of(decoder, calibration)
    hidden, reached = walk.start, 0
    for block, layout in places:
        while reached < block:
            hidden, reached = walk.through(reached, hidden), reached + 1
        yield _moments_at(walk, block, hidden, layout)


def _moments_at(walk: LayerwiseRunner, block: int, hidden: Hidden, layout: UnitLayout) -> JointMoments:
    shape = walk.decoder.shapes[block]
    moments = JointMoments.none(shape.units(layout.part) * shape.rows(layout.part), 0)
    for batch, seen in enumerate(walk.watch(block, hidden, until=layout.output_projection)):
        assert seen.inputs is not None
        moments.add(walk.counted(batch, seen.inputs))
    return moments


def repaired(
    decoder: Decoder, block: int, layout: UnitLayout, kept: tuple[int, ...], moments: JointMoments
) -> CompensatedProjection:
    """An output projection whose kept columns also reproduce the contribution of the removed ones.

    Args:
        decoder: the dense model.
        block: index of the block.
        layout: the sublayer.
        kept: the kept units.
        moments: moments of all inputs of the projection.
    """
    shape = decoder.shapes[block]
    stay = set(kept)
    columns = layout.columns(shape, kept)
    removed = layout.columns(shape, [unit for unit in range(shape.units(layout.part)) if unit not in stay])
    lost = decoder.weight(block, layout.output_projection)[:, removed.to(decoder.device_of(block))].cpu().double()
    of_kept = JointMoments(
        moments.count,
        moments.input_mean[columns],
        lost @ moments.input_mean[removed],
        moments.inputs[columns[:, None], columns],
        moments.inputs[columns[:, None], removed] @ lost.T,
    )
    return fitted(decoder, block, layout, columns, of_kept)


def fitted(
    decoder: Decoder, block: int, layout: UnitLayout, columns: Tensor, missing: JointMoments
) -> CompensatedProjection:
    """An output projection that also computes its missing output.

    Args:
        decoder: the dense model.
        block: index of the block.
        layout: the sublayer.
        columns: the kept columns.
        missing: joint moments of their inputs and of the missing output.
    """
    weight, bias = decoder.weight(block, layout.output_projection), decoder.bias(block, layout.output_projection)
    change, constant = fit(missing)
    fitted_weight = weight[:, columns.to(weight.device)].cpu().double() + change
    fitted_bias = constant if bias is None else bias.cpu().double() + constant
    return CompensatedProjection(
        fitted_weight.to(weight.device, weight.dtype), fitted_bias.to(weight.device, weight.dtype)
    )
