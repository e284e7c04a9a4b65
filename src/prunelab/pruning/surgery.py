"""Apply a plan: build a new model that shares every unchanged tensor with the dense one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import nn, torch
from prunelab.models.tying import config_of
from prunelab.pruning.architecture import TargetArchitecture, choose_architecture
from prunelab.pruning.compensation import COMPENSATORS, Compensation
from prunelab.pruning.compensation.projection import Repairs, units_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunelab.calibration import ActivationStatistics, CalibrationSet
    from prunelab.models.families import Decoder
    from prunelab.pruning.allocation import KeptUnits
    from prunelab.pruning.plan import PruningPlan


def cut(
    decoder: Decoder,
    kept: KeptUnits,
    compensation: Compensation = "none",
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
) -> PreTrainedModel:
    """Remove all units that are not kept.

    The dense model is not changed. The pruned model shares its embeddings, norms and unpruned projections.

    Args:
        decoder: the dense model.
        kept: the kept units.
        compensation: with `bias`, a bias of the output projection replaces the mean contribution of the removed units;
            the others change its weights as well (see `prunelab.pruning.compensation`).
        statistics: calibration statistics; required for `bias`, and `least_squares` uses second moments in them.
        calibration: calibration tokens; required for the other compensations.

    Raises:
        InvalidRequest: the compensation lacks its statistics or tokens.
    """
    if compensation == "bias" and statistics is None:
        raise InvalidRequest(
            "bias compensation needs calibration statistics: calibrate first, or use --compensation none"
        )
    if compensation not in COMPENSATORS:
        return cut_repaired(decoder, kept, {}, statistics if compensation == "bias" else None)
    if calibration is None:
        raise InvalidRequest(
            f"{compensation} compensation needs the calibration tokens: calibrate first, or use --compensation none"
        )
    return cut_repaired(decoder, kept, COMPENSATORS[compensation](decoder, kept, calibration, statistics))


def cut_repaired(
    decoder: Decoder, kept: KeptUnits, repairs: Repairs, statistics: ActivationStatistics | None = None
) -> PreTrainedModel:
    """Remove all units that are not kept, with given output projections, or with biases only.

    Args:
        decoder: the dense model.
        kept: the kept units.
        repairs: output projections after compensation.
        statistics: if given, a bias replaces the mean contribution of the removed units.
    """
    from transformers.initialization import no_init_weights

    form = architecture_of(decoder, kept, biased=statistics is not None, repairs=repairs)
    tensors = _cut_tensors(decoder, kept, form, statistics)
    for (block, path), repair in repairs.items():
        prefix = f"{decoder.prefix}{kept.blocks.index(block)}."
        replaced = {f"{prefix}{path}.weight": repair.weight}
        if repair.bias is not None:
            replaced[f"{prefix}{path}.bias"] = repair.bias
        assert set(replaced) <= set(tensors), "the architecture has a parameter for every repair"
        if repair.behind_norm is not None:
            replaced[f"{prefix}{decoder.family.residual_output(path)}.map"] = repair.behind_norm
        tensors |= replaced
    with torch.device("meta"), no_init_weights():
        pruned: PreTrainedModel = form.model_class(form.config)
    pruned.load_state_dict(tensors, strict=True, assign=True)
    bring_buffers(dict(decoder.model.named_buffers()), pruned)
    pruned.tie_weights()
    pruned.generation_config = copy.deepcopy(decoder.model.generation_config)
    pruned.name_or_path = decoder.model.name_or_path
    return pruned.train(decoder.model.training)


def apply(
    decoder: Decoder,
    plan: PruningPlan,
    statistics: ActivationStatistics | None = None,
    calibration: CalibrationSet | None = None,
) -> PreTrainedModel:
    """Apply a plan; see `cut`. The caller has checked that the plan belongs to this model."""
    return cut(decoder, plan.kept, plan.compensation, statistics, calibration)


def architecture_of(
    decoder: Decoder, kept: KeptUnits, *, biased: bool, repairs: Repairs | None = None
) -> TargetArchitecture:
    """The architecture of the pruned model.

    Args:
        decoder: the dense model.
        kept: the kept units.
        biased: whether a bias replaces the mean contribution of the removed units.
        repairs: otherwise, output projections after compensation.
    """
    biases = _biased(decoder, kept) if biased else _repaired(kept, repairs or {})
    mapped = frozenset(block for (block, _), repair in (repairs or {}).items() if repair.behind_norm is not None)
    return choose_architecture(config_of(decoder.model), decoder.family, kept, biases, mapped)


def _removed(kept_units: tuple[int, ...], count: int) -> list[int]:
    stay = set(kept_units)
    return [unit for unit in range(count) if unit not in stay]


def _biased(decoder: Decoder, kept: KeptUnits) -> tuple[frozenset[str], ...]:
    """For each kept block, the output projections that lose columns."""
    return tuple(
        frozenset(
            layout.output_projection
            for layout in decoder.family.layouts()
            if len(units_of(kept, position, layout)) < decoder.shapes[block].units(layout.part)
        )
        for position, block in enumerate(kept.blocks)
    )


def _repaired(kept: KeptUnits, repairs: Repairs) -> tuple[frozenset[str], ...]:
    """For each kept block, the output projections whose repair has a bias."""
    return tuple(
        frozenset(path for (at, path), repair in repairs.items() if at == block and repair.bias is not None)
        for block in kept.blocks
    )


def _cut_tensors(
    decoder: Decoder, kept: KeptUnits, form: TargetArchitecture, statistics: ActivationStatistics | None
) -> dict[str, Tensor]:
    """The pruned model's state, by name."""
    tensors = {name: tensor for name, tensor in decoder.model.state_dict().items() if decoder.is_outside_blocks(name)}
    for position in range(len(kept.blocks)):
        tensors |= cut_block(decoder, kept, position, form, statistics)
    return tensors


def cut_block(
    decoder: Decoder, kept: KeptUnits, position: int, form: TargetArchitecture, statistics: ActivationStatistics | None
) -> dict[str, Tensor]:
    """The state of one block of the pruned model, by its names in the pruned model.

    Args:
        decoder: the dense model.
        kept: the kept units.
        position: index of the block among the kept ones.
        form: architecture of the pruned model; biases that it has and the block lacks are zero.
        statistics: statistics for the bias compensation; None for none.
    """
    prefix = f"{decoder.prefix}{position}."
    tensors: dict[str, Tensor] = {}
    for inner, tensor in decoder.block_state(kept.blocks[position]).items():
        part = remaining(decoder, kept, position, inner)
        if part is not None:
            tensors[prefix + inner] = part.of(tensor)
    return tensors | new_biases(decoder, kept, position, form, statistics)


@dataclass(frozen=True)
class Remaining:
    """The kept part of a block's tensor.

    Attributes:
        indices: kept indices, ascending, shape `(kept,)`; None if all are kept.
        of_columns: whether they index columns instead of rows.
    """

    indices: Tensor | None = None
    of_columns: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The kept part of a tensor; the tensor itself if all of it is kept."""
        if self.indices is None:
            return tensor
        indices = self.indices.to(tensor.device)
        # Each form is the faster one for its dimension on a CPU.
        return tensor[:, indices] if self.of_columns else tensor.index_select(0, indices)


def remaining(decoder: Decoder, kept: KeptUnits, position: int, inner: str) -> Remaining | None:
    """The kept part of one tensor of a kept block; None if its module is removed.

    An attention without key-value groups keeps only the bias of its output projection; the norms of queries and keys
    are removed as well.
    """
    shape = decoder.shapes[kept.blocks[position]]
    path, _, kind = inner.rpartition(".")
    for layout in decoder.family.layouts():
        units = units_of(kept, position, layout)
        is_complete = len(units) == shape.units(layout.part)
        if path == layout.output_projection:
            if is_complete or kind == "bias":
                return Remaining()
            return Remaining(layout.columns(shape, units), of_columns=True)
        if layout.unit == "key_value_group" and not units and path.startswith(f"{layout.module}."):
            return None
        for projection in layout.input_projections:
            if path == projection.path:
                return Remaining() if is_complete else Remaining(layout.rows(projection, shape, units))
    return Remaining()


def new_biases(
    decoder: Decoder, kept: KeptUnits, position: int, form: TargetArchitecture, statistics: ActivationStatistics | None
) -> dict[str, Tensor]:
    """The biases of a kept block that are added or changed, by their names in the pruned model; see `cut_block`."""
    prefix, block = f"{decoder.prefix}{position}.", kept.blocks[position]
    biases: dict[str, Tensor] = {}
    for name, size in form.biases(decoder, kept):
        if name.startswith(prefix) and decoder.bias(block, name[len(prefix) :].removesuffix(".bias")) is None:
            biases[name] = torch.zeros(size, dtype=decoder.model.dtype, device=decoder.device_of(block))
    if statistics is not None:
        for path, contribution in _compensation(decoder, kept, position, statistics):
            old = decoder.bias(block, path)
            old = biases[f"{prefix}{path}.bias"] if old is None else old
            biases[f"{prefix}{path}.bias"] = (old.cpu().double() + contribution).to(old.device, old.dtype)
    return biases


def _compensation(
    decoder: Decoder, kept: KeptUnits, position: int, statistics: ActivationStatistics
) -> list[tuple[str, Tensor]]:
    """The mean contribution of a block's removed inputs, b = W[:, removed] @ mean[removed] (FLAP, section 3.3).

    Sums are in float64, or in float32 for weights of half precision, whose resolution is a thousand times coarser.
    """
    biases, block = [], kept.blocks[position]
    shape = decoder.shapes[block]
    for layout in decoder.family.layouts():
        removed = _removed(units_of(kept, position, layout), shape.units(layout.part))
        if not removed:
            continue
        columns = layout.columns(shape, removed)
        wide = torch.float64 if decoder.model.dtype.itemsize > 2 else torch.float32
        mean = statistics.of(layout.unit)[block].mean[columns].to(wide)
        # On the CPU: not every device supports float64.
        parts = [
            rows[:, columns.to(rows.device)].cpu().to(wide) @ mean
            for rows in decoder.weight_rows(block, layout.output_projection)
        ]
        biases.append((layout.output_projection, torch.cat(parts).double()))
    return biases


def bring_buffers(old: Mapping[str, Tensor], pruned: nn.Module) -> None:
    """Copy the buffers that no checkpoint holds (rotary frequencies, embedding scales) from the dense model."""
    for name, buffer in list(pruned.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            module: Any = pruned.get_submodule(owner)
            module._buffers[leaf] = old[name].clone()
