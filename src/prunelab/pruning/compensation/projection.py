"""Output projections after compensation, and their form in a block that is not pruned yet."""

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
        weight: weights of the kept columns, shape `(hidden, kept columns)`, in the model's dtype.
        bias: shape `(hidden,)`, including the projection's original bias; None for none.
        behind_norm: linear map after the norm that follows the projection, shape `(hidden, hidden)`; None for none.
    """

    weight: Tensor
    bias: Tensor | None
    behind_norm: Tensor | None = None


Repairs = Mapping[tuple[int, str], CompensatedProjection]
"""By block of the dense model and path of the output projection."""


def units_of(kept: KeptUnits, position: int, layout: UnitLayout) -> tuple[int, ...]:
    """The kept units of one kind in a kept block."""
    return (kept.key_value_groups if layout.unit == "key_value_group" else kept.channels)[position]


def masked(
    decoder: Decoder, block: int, layout: UnitLayout, units: tuple[int, ...], repair: CompensatedProjection
) -> ProjectionOverride:
    """A compensated projection with zeros in the removed columns, for a block that is not pruned yet."""
    weight = torch.zeros_like(decoder.weight(block, layout.output_projection))
    weight[:, layout.columns(decoder.shapes[block], units).to(weight.device)] = repair.weight
    return ProjectionOverride(weight, repair.bias)
