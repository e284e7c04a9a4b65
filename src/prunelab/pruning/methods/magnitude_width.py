"""Unit magnitude: remove the units with the smallest weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.io.lazy import torch
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, WidthMethod

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.families import Decoder
    from prunelab.models.layout import UnitLayout


def column_norms(decoder: Decoder, block: int, layout: UnitLayout) -> Tensor:
    """Euclidean norm of each input channel's column in the output projection, shape `(channels,)`."""
    squares = (rows.float().square().sum(dim=0) for rows in decoder.weight_rows(block, layout.output_projection))
    # On the CPU: not every device supports float64.
    return torch.stack([part.cpu().double() for part in squares]).sum(dim=0).sqrt()


@register
class MagnitudeWidth(WidthMethod):
    """Remove the units whose columns in the output projection have the smallest norm.

    The ranking is FLAP's with the norm of W_j in place of Var(X_j) ||W_j||^2: the difference between the two methods is
    the effect of calibration.
    """

    name: ClassVar[str] = "magnitude_width"
    summary: ClassVar[str] = "remove the key-value groups and MLP channels with the smallest weights"
    source: ClassVar[str] = "baseline"
    needs_statistics: ClassVar[bool] = False

    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """The norm of each column."""
        return column_norms(evidence.decoder, block, layout)
