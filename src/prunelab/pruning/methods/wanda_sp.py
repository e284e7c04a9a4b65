"""Wanda-sp: weights times activations, summed over whole columns (Sun et al. 2023; An et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.io.lazy import torch
from prunelab.pruning.methods import register
from prunelab.pruning.methods.activation_norm import activation_sizes
from prunelab.pruning.methods.base import MethodInputs, WidthMethod

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.families import Decoder
    from prunelab.models.layout import UnitLayout


def column_sums(decoder: Decoder, block: int, layout: UnitLayout) -> Tensor:
    """Sum of absolute weights of each input channel's column in the output projection, shape `(channels,)`."""
    sums = (rows.float().abs().sum(dim=0) for rows in decoder.weight_rows(block, layout.output_projection))
    # On the CPU: not every device supports float64.
    return torch.stack([part.cpu().double() for part in sums]).sum(dim=0)


@register
class WandaSp(WidthMethod):
    """Remove the units with the lowest sum over rows of |W_ij| ||X_j||.

    Wanda's score of a single weight, summed over the column that is removed, as FLAP's authors did for comparison.
    Deviations: they remove the same share in every block and do not compensate; here all blocks compete in one
    standardised ranking (`--uniform` for one width), and the compensation is an option, as for every width method.
    """

    name: ClassVar[str] = "wanda_sp"
    summary: ClassVar[str] = "remove the groups and channels with the lowest weight magnitude times activation norm"
    source: ClassVar[str] = "Wanda, Sun et al. 2023, as structured by An et al. 2024"

    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """The sum of each column times the root mean square of its activations."""
        return column_sums(evidence.decoder, block, layout) * activation_sizes(evidence.statistics, block, layout)
