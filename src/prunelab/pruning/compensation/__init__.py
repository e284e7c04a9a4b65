"""Closed-form compensation: kept channels take over what the removed ones said.

An output projection reads x and says W x. With columns K kept and R removed it says W_K x_K, and W_R x_R is missing.
Least squares puts (W_K + D) x_K + b in its place, D and b from ridge regression of what is missing on x_K over the
calibration tokens (`prunelab.pruning.compensation.ridge`); for a linear predictor A of x_R from x_K, D is W_R A.

- `least_squares` takes the moments of the whole model: what is missing is W_R x_R. Projections that lose nothing stay
  as they are.
- `sequential` goes from block to block, the inputs being those behind the blocks that are cut already. What is missing
  is whatever separates the residual stream from the whole model's, so every kept projection behind a cut also makes up
  for the blocks and sublayers that went before it.

- `linear_map` puts a linear map in place of every run of removed blocks (`prunelab.pruning.compensation.linear_map`).

What it costs (pocket-llama, `timing/methods_cost.py`). `least_squares` takes second moments that the calibration pass
has collected, where they fit into memory (`prunelab.calibration.cache`): 1.4 calibration passes in all, 0.04 a further
cut. Where they do not, every cut takes a pass of its own over the calibration tokens, block by block, with the moments
of one projection held at a time: 2.4 passes in all, 1.4 a further cut. For an 8B model those are 14336^2 numbers of 8
bytes, 1.5 GiB, three times that while they are solved (`timing/least_squares_streamed.py --large`: 5.1 GiB at the peak
with the block itself), besides the hidden states (2 GiB); the moments of all projections together would be 57 GB. The
pass also repairs a model that is streamed, one block in memory at a time: each is then read from the disk once for
every projection that it narrows, and once more to go through it. `sequential` and `linear_map` always take a pass of
their own, `sequential` with two sets of hidden states.
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
    """Repair every projection that loses columns, from the moments of the whole model.

    Args:
        decoder: the model before the cut.
        kept: what stays.
        calibration: the tokens.
        statistics: of the same tokens; second moments that they hold are not collected again.
    """
    blocks = zip(kept.blocks, least_squares_by_block(decoder, kept, calibration, statistics), strict=True)
    return {(block, path): repair for block, repairs in blocks for path, repair in repairs.items()}


def least_squares_by_block(
    decoder: Decoder, kept: KeptUnits, calibration: CalibrationSet, statistics: ActivationStatistics | None = None
) -> Iterator[dict[str, CompensatedProjection]]:
    """The same of one kept block after the other, by output projection; the decoder may be a streamed one."""
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
    """Repair every projection from the first cut on, each on what the repaired ones before it give."""
    walk = LayerwiseRunner.of(decoder, calibration)
    whole: Hidden = walk.start
    cut: Hidden = walk.start
    repairs: dict[tuple[int, str], CompensatedProjection] = {}
    narrowed = {(block, layout.output_projection) for block, layout, _ in _narrowed(decoder, kept)}
    changed = False
    for block in range(len(decoder.shapes)):
        if block not in kept.blocks:
            whole, changed = walk.through(block, whole), True
            continue
        if not changed and not any(at == block for at, _ in narrowed):
            whole = cut = walk.through(block, whole)
            continue
        aims = _Aims.of(walk, block, whole)
        writers: dict[str, ProjectionOverride] = {}
        position = kept.blocks.index(block)
        for layout in decoder.family.layouts():
            units = units_of(kept, position, layout)
            changed = changed or (block, layout.output_projection) in narrowed
            if changed:
                columns = layout.columns(decoder.shapes[block], units)
                moments = _missing(walk, block, cut, writers, layout, columns, aims)
                repair = fitted(decoder, block, layout, columns, moments)
                repairs[block, layout.output_projection] = repair
                writers[layout.output_projection] = masked(decoder, block, layout, units, repair)
        cut, whole = walk.through(block, cut, writers), aims.output
    return repairs


@dataclass(frozen=True)
class _Aims:
    """Of one block of the whole model, a batch each.

    Attributes:
        behind: the residual stream behind each sublayer, by its output projection.
        size: root mean square of each projection's output a token, shape `(samples, tokens, 1)`.
    """

    behind: Mapping[str, list[Tensor]]
    size: Mapping[str, list[Tensor]]

    @classmethod
    def of(cls, walk: LayerwiseRunner, block: int, hidden: Hidden) -> _Aims:
        attention, mlp = walk.decoder.family.layouts()
        behind: dict[str, list[Tensor]] = {attention.output_projection: [], mlp.output_projection: []}
        size: dict[str, list[Tensor]] = {attention.output_projection: [], mlp.output_projection: []}
        for states, seen in zip(hidden, walk.watch(block, hidden), strict=True):
            assert seen.output is not None
            behind[attention.output_projection].append(states + seen.added[attention.output_projection])
            behind[mlp.output_projection].append(seen.output)
            for path, said in seen.said.items():
                size[path].append(said.float().square().mean(dim=-1, keepdim=True).sqrt())
        return cls(behind, size)

    @property
    def output(self) -> Hidden:
        """The hidden states behind the block."""
        return list(self.behind.values())[-1]


def _missing(
    walk: LayerwiseRunner,
    block: int,
    cut: Hidden,
    writers: ProjectionOverrides,
    layout: UnitLayout,
    columns: Tensor,
    aims: _Aims,
) -> JointMoments:
    """Moments of a projection's kept inputs in the cut model, and of what its kept weights fail to say."""
    decoder = walk.decoder
    attention, _ = decoder.family.layouts()
    weight = decoder.weight(block, layout.output_projection)[:, columns.to(decoder.model.device)].float()
    bias = decoder.bias(block, layout.output_projection)
    moments = JointMoments.none(len(columns), weight.shape[0])
    for batch, (states, seen) in enumerate(
        zip(cut, walk.watch(block, cut, writers, layout.output_projection), strict=True)
    ):
        assert seen.inputs is not None
        before = states if layout is attention else states + seen.added[attention.output_projection]
        wanted = aims.behind[layout.output_projection][batch] - before
        wanted = _before_the_norm(decoder, block, layout, wanted.float(), aims.size[layout.output_projection][batch])
        x = walk.counted(batch, seen.inputs)[:, columns]
        said = x @ weight.to(x.dtype).T + (0 if bias is None else bias.to(x.dtype))
        moments.add(x, walk.counted(batch, wanted) - said)
    return moments


def _before_the_norm(decoder: Decoder, block: int, layout: UnitLayout, wanted: Tensor, size: Tensor) -> Tensor:
    """What a projection must say so that `wanted` is added to the residual stream.

    Where a norm stands between (Gemma-2), it is undone: divided by the norm's gains, with the size that the whole
    model's projection has for the token. The norm forgets the size, so this is one of many answers: the whole model's
    own when nothing is missing. A linear map behind the norm, from an earlier cut, is undone before.
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
    """Inputs of the widest fit that this compensation makes, 0 for none.

    Args:
        decoder: the model before the cut.
        kept: what stays.
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
    """Every output projection of a kept block that loses columns."""
    for position, block in enumerate(kept.blocks):
        for layout in decoder.family.layouts():
            units = units_of(kept, position, layout)
            if len(units) < decoder.shapes[block].units(layout.part):
                yield block, layout, units


Compensator = Callable[
    [Decoder, KeptUnits, CalibrationSet, ActivationStatistics | None], dict[tuple[int, str], CompensatedProjection]
]
"""From the model, what stays, the calibration tokens and the statistics of their pass."""

COMPENSATORS: Mapping[str, Compensator] = {
    "least_squares": least_squares,
    "sequential": lambda decoder, kept, calibration, _: sequential(decoder, kept, calibration),
    "linear_map": lambda decoder, kept, calibration, _: linear_map(decoder, kept, calibration),
}
"""What repairs from the calibration tokens, by passes over them where the statistics do not suffice."""

FOR_BLOCKS: tuple[Compensation, ...] = ("sequential", "linear_map")
"""Those that make up for whole blocks."""
