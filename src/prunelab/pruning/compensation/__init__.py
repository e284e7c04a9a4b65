"""Closed-form compensation: the kept channels reproduce the output of the removed ones, without training.

An output projection computes W x. With columns K kept and R removed it computes W_K x_K, and W_R x_R is missing. Least
squares replaces it by (W_K + D) x_K + b, with D and b from ridge regression of the missing output on x_K over the
calibration tokens (`prunelab.pruning.compensation.ridge`); for a linear predictor A of x_R from x_K, D is W_R A.

- `least_squares` uses the moments of the dense model: the missing output is W_R x_R. Projections that lose no columns
  are not changed.
- `sequential` proceeds block by block on the activations of the blocks that are already pruned. The missing output is
  the difference to the dense model's residual stream, so every kept projection after the first pruned sublayer also
  compensates for the blocks and sublayers removed before it.
- `linear_map` puts a linear map in place of every run of removed blocks (`prunelab.pruning.compensation.linear_map`).

Cost (pocket-llama, `timing/methods_cost.py`). `least_squares` uses second moments that the calibration pass has
collected, where they fit into memory (`prunelab.calibration.cache`): 1.4 calibration passes in all, 0.04 per further
plan. Otherwise every plan takes a pass over the calibration tokens, block by block, with the moments of one projection
in memory: 2.4 passes in all, 1.4 per further plan. For an 8B model those moments are 14336^2 numbers of 8 bytes,
1.5 GiB, and three times that while they are solved (`timing/least_squares_streamed.py --large`: 5.1 GiB at the peak
with the block itself), besides the hidden states (2 GiB); the moments of all projections at once would take 57 GB. The
pass also works on a streamed model with one block in memory: each block is then read from disk once for every
projection that loses columns, and once more to propagate the hidden states. `sequential` and `linear_map` always take a
pass of their own, `sequential` with two sets of hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.calibration.joint_moments import JointMoments
from prunelab.io.lazy import torch
from prunelab.models.families import Decoder
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.compensation.linear_map import linear_map, removed_runs
from prunelab.pruning.compensation.projection import CompensatedProjection, masked, units_of
from prunelab.pruning.compensation.second_moments import fitted, repaired, second_moments
from prunelab.pruning.search.layerwise import Hidden, LayerwiseRunner, ProjectionOverride, ProjectionOverrides

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.layout import UnitLayout

Compensation = Literal["none", "bias", "least_squares", "sequential", "linear_map"]


def least_squares(
    decoder: Decoder, kept: KeptUnits, calibration: CalibrationSet, statistics: ActivationStatistics | None = None
) -> dict[tuple[int, str], CompensatedProjection]:
    """Compensate every projection that loses columns, from the moments of the dense model.

    Args:
        decoder: the dense model.
        kept: the kept units.
        calibration: the calibration tokens.
        statistics: statistics of the same tokens; second moments in them are used instead of a new pass.

    Returns:
        Compensated projections by block and path of the output projection.
    """
    blocks = zip(kept.blocks, least_squares_by_block(decoder, kept, calibration, statistics), strict=True)
    return {(block, path): repair for block, repairs in blocks for path, repair in repairs.items()}


def least_squares_by_block(
    decoder: Decoder, kept: KeptUnits, calibration: CalibrationSet, statistics: ActivationStatistics | None = None
) -> Iterator[dict[str, CompensatedProjection]]:
    """As `least_squares`, one kept block at a time, by output projection; the model may be streamed."""
    narrowed = list(_narrowed(decoder, kept))
    moments = second_moments(decoder, [(block, layout) for block, layout, _ in narrowed], calibration, statistics)
    for block in kept.blocks:
        yield {
            layout.output_projection: repaired(decoder, block, layout, units, next(moments))
            for at, layout, units in narrowed
            if at == block
        }


def sequential(
    decoder: Decoder, kept: KeptUnits, calibration: CalibrationSet
) -> dict[tuple[int, str], CompensatedProjection]:
    """Compensate every projection from the first pruned block on, given the compensated projections before it."""
    runner = LayerwiseRunner.of(decoder, calibration)
    dense: Hidden = runner.start
    pruned: Hidden = runner.start
    repairs: dict[tuple[int, str], CompensatedProjection] = {}
    narrowed = {(block, layout.output_projection) for block, layout, _ in _narrowed(decoder, kept)}
    changed = False
    for block in range(len(decoder.shapes)):
        if block not in kept.blocks:
            dense, changed = runner.through(block, dense), True
            continue
        if not changed and not any(at == block for at, _ in narrowed):
            dense = pruned = runner.through(block, dense)
            continue
        aims = _Aims.of(runner, block, dense)
        writers: dict[str, ProjectionOverride] = {}
        position = kept.blocks.index(block)
        for layout in decoder.family.layouts():
            units = units_of(kept, position, layout)
            changed = changed or (block, layout.output_projection) in narrowed
            if changed:
                columns = layout.columns(decoder.shapes[block], units)
                moments = _missing(runner, block, pruned, writers, layout, columns, aims)
                repair = fitted(decoder, block, layout, columns, moments)
                repairs[block, layout.output_projection] = repair
                writers[layout.output_projection] = masked(decoder, block, layout, units, repair)
        pruned, dense = runner.through(block, pruned, writers), aims.output
    return repairs


@dataclass(frozen=True)
class _Aims:
    """Targets from one block of the dense model; lists have one entry per batch.

    Attributes:
        behind: residual stream after each sublayer, by output projection, shape `(samples, tokens, hidden)`.
        size: root mean square of each projection's output per token, shape `(samples, tokens, 1)`.
    """

    behind: Mapping[str, list[Tensor]]
    size: Mapping[str, list[Tensor]]

    @classmethod
    def of(cls, walk: LayerwiseRunner, block: int, hidden: Hidden) -> _Aims:
        attention, mlp = walk.decoder.family.layouts()
        streams: dict[str, list[Tensor]] = {attention.output_projection: [], mlp.output_projection: []}
        size: dict[str, list[Tensor]] = {attention.output_projection: [], mlp.output_projection: []}
        for states, seen in zip(hidden, walk.watch(block, hidden), strict=True):
            assert seen.output is not None
            streams[attention.output_projection].append(states + seen.added[attention.output_projection])
            streams[mlp.output_projection].append(seen.output)
            for path, output in seen.said.items():
                size[path].append(output.float().square().mean(dim=-1, keepdim=True).sqrt())
        return cls(streams, size)

    @property
    def output(self) -> Hidden:
        """Hidden states after the block."""
        return list(self.behind.values())[-1]


def _missing(
    walk: LayerwiseRunner,
    block: int,
    pruned: Hidden,
    writers: ProjectionOverrides,
    layout: UnitLayout,
    columns: Tensor,
    aims: _Aims,
) -> JointMoments:
    """Joint moments of a projection's kept inputs in the pruned model and of the output that its kept weights miss."""
    decoder = walk.decoder
    attention, _ = decoder.family.layouts()
    weight = decoder.weight(block, layout.output_projection)[:, columns.to(decoder.model.device)].float()
    bias = decoder.bias(block, layout.output_projection)
    moments = JointMoments.none(len(columns), weight.shape[0])
    for batch, (states, seen) in enumerate(
        zip(pruned, walk.watch(block, pruned, writers, layout.output_projection), strict=True)
    ):
        assert seen.inputs is not None
        before = states if layout is attention else states + seen.added[attention.output_projection]
        wanted = aims.behind[layout.output_projection][batch] - before
        wanted = _before_the_norm(decoder, block, layout, wanted.float(), aims.size[layout.output_projection][batch])
        x = walk.counted(batch, seen.inputs)[:, columns]
        predicted = x @ weight.to(x.dtype).T + (0 if bias is None else bias.to(x.dtype))
        moments.add(x, walk.counted(batch, wanted) - predicted)
    return moments


def _before_the_norm(decoder: Decoder, block: int, layout: UnitLayout, wanted: Tensor, size: Tensor) -> Tensor:
    """The projection output for which `wanted` is added to the residual stream.

    Where a norm follows the projection (Gemma-2), the norm is inverted: `wanted` is divided by the norm's gains and
    multiplied by the root mean square of the dense model's projection output for the token. A norm discards the scale
    of its input, so this inverse is one of many; it equals the dense model's output if nothing is missing. A linear map
    after the norm, from an earlier pruning, is inverted first.
    """
    path = decoder.family.residual_output(layout.output_projection)
    if path == layout.output_projection:
        return wanted
    norm = decoder.blocks[block].get_submodule(path)
    gains = norm(torch.ones(wanted.shape[-1], device=wanted.device, dtype=decoder.model.dtype)).float()
    map_ = decoder.map_behind(block, path)
    if map_ is not None:
        back = torch.linalg.pinv(map_.double()).float().T
        wanted, gains = wanted @ back, gains @ back
    floor = 1e-2 * gains.abs().mean()
    return wanted / torch.where(gains.abs() < floor, floor, gains) * size


def most_inputs(decoder: Decoder, kept: KeptUnits, compensation: Compensation) -> int:
    """Number of inputs of the widest fit that this compensation makes; 0 for none.

    Args:
        decoder: the dense model.
        kept: the kept units.
        compensation: one of `COMPENSATORS`.
    """
    if compensation == "linear_map":
        width: int = decoder.model.get_input_embeddings().embedding_dim
        return width if any(removed_runs(decoder, kept)) else 0
    every = ((block, layout) for block in kept.blocks for layout in decoder.family.layouts())
    fitted_ = (
        every if compensation == "sequential" else ((block, layout) for block, layout, _ in _narrowed(decoder, kept))
    )
    return max(
        (
            len(layout.columns(decoder.shapes[block], units_of(kept, kept.blocks.index(block), layout)))
            for block, layout in fitted_
        ),
        default=0,
    )


def _narrowed(decoder: Decoder, kept: KeptUnits) -> Iterator[tuple[int, UnitLayout, tuple[int, ...]]]:
    """Output projections of kept blocks that lose columns."""
    for position, block in enumerate(kept.blocks):
        for layout in decoder.family.layouts():
            units = units_of(kept, position, layout)
            if len(units) < decoder.shapes[block].units(layout.part):
                yield block, layout, units


Compensator = Callable[
    [Decoder, KeptUnits, CalibrationSet, ActivationStatistics | None], dict[tuple[int, str], CompensatedProjection]
]
"""From the dense model, the kept units, the calibration tokens and their statistics to the compensated projections."""

COMPENSATORS: Mapping[str, Compensator] = {
    "least_squares": least_squares,
    "sequential": lambda decoder, kept, calibration, _: sequential(decoder, kept, calibration),
    "linear_map": lambda decoder, kept, calibration, _: linear_map(decoder, kept, calibration),
}
"""Compensations computed from the calibration tokens, by passes over them if the statistics do not suffice."""

FOR_BLOCKS: tuple[Compensation, ...] = ("sequential", "linear_map")
"""Compensations for whole removed blocks."""
