"""Output projections after compensation, and how they stand in a block that is not cut yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.io.lazy import torch
from prunelab.pruning.search.layerwise import ProjectionOverride

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.families import Decoder
    from prunelab.models.layout import UnitLayout
    from prunelab.pruning.allocation import KeptUnits


@dataclass(frozen=True)
class CompensatedProjection:
    """An output projection after compensation.

    Attributes:
        weight: of the kept columns, shape `(hidden, kept columns)`, in the model's dtype.
        bias: shape `(hidden,)`, the projection's own bias in it; None for none.
        behind_norm: a linear map behind the norm that the projection's output passes, shape `(hidden, hidden)`.
    """

    weight: Tensor
    bias: Tensor | None
    behind_norm: Tensor | None = None


Repairs = Mapping[tuple[int, str], CompensatedProjection]
"""By block of the base model and path of the output projection."""


def units_of(kept: KeptUnits, position: int, layout: UnitLayout) -> tuple[int, ...]:
    """What a kept block keeps of one kind of unit."""
    return (kept.key_value_groups if layout.unit == "key_value_group" else kept.channels)[position]


def masked(
    decoder: Decoder, block: int, layout: UnitLayout, units: tuple[int, ...], repair: CompensatedProjection
) -> ProjectionOverride:
    """A repaired projection at its full width, for a block that is not cut yet."""
    weight = torch.zeros_like(decoder.weight(block, layout.output_projection))
    weight[:, layout.columns(decoder.shapes[block], units).to(weight.device)] = repair.weight
    return ProjectionOverride(weight, repair.bias)
