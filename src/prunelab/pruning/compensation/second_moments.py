"""Second moments of the inputs of output projections, and what least squares makes of them.

How a projection's inputs vary together over the calibration tokens decides, for any columns kept, the weights with
which they say best what the others said. The moments of the whole model are collected in the calibration pass where
they fit (`prunelab.calibration.cache`), or else in a pass of their own, which holds one projection's at a time. The
sums are the same: where no token is masked, to the bit.
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
"""A block, and which of its sublayers."""


def second_moments(
    decoder: Decoder,
    places: Sequence[ProjectionPosition],
    calibration: CalibrationSet,
    statistics: ActivationStatistics | None,
) -> Iterator[JointMoments]:
    """Of all inputs of some output projections in the whole model, one after the other; there are no targets.

    Args:
        decoder: the model; it may be a streamed one.
        places: the projections, in the blocks' order.
        calibration: the tokens.
        statistics: where they hold second moments of these very tokens, nothing is run.
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
    """An output projection whose kept columns take over what the others said.

    Args:
        decoder: the model before the cut.
        block: where the projection is.
        layout: which it is.
        kept: the units that stay.
        moments: of all its inputs.
    """
    shape = decoder.shapes[block]
    stay = set(kept)
    columns = layout.columns(shape, kept)
    gone = layout.columns(shape, [unit for unit in range(shape.units(layout.part)) if unit not in stay])
    lost = decoder.weight(block, layout.output_projection)[:, gone.to(decoder.device_of(block))].cpu().double()
    of_kept = JointMoments(
        moments.count,
        moments.input_mean[columns],
        lost @ moments.input_mean[gone],
        moments.inputs[columns[:, None], columns],
        moments.inputs[columns[:, None], gone] @ lost.T,
    )
    return fitted(decoder, block, layout, columns, of_kept)


def fitted(
    decoder: Decoder, block: int, layout: UnitLayout, columns: Tensor, missing: JointMoments
) -> CompensatedProjection:
    """An output projection that also says what it was found to lack.

    Args:
        decoder: the model before the cut.
        block: where the projection is.
        layout: which it is.
        columns: its kept ones.
        missing: moments of their inputs, and of what is missing in its output.
    """
    weight, bias = decoder.weight(block, layout.output_projection), decoder.bias(block, layout.output_projection)
    change, constant = fit(missing)
    whole = weight[:, columns.to(weight.device)].cpu().double() + change
    said = constant if bias is None else bias.cpu().double() + constant
    return CompensatedProjection(whole.to(weight.device, weight.dtype), said.to(weight.device, weight.dtype))
