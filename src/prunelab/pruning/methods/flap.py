"""FLAP: remove the heads and channels whose activations have the lowest fluctuation (An et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, WidthMethod
from prunelab.pruning.methods.magnitude_width import column_norms

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import ActivationStatistics
    from prunelab.models.families import Decoder
    from prunelab.models.layout import UnitLayout


def fluctuation(decoder: Decoder, statistics: ActivationStatistics, block: int, layout: UnitLayout) -> Tensor:
    """S_j = Var(X_j) * ||W_j||^2 for each input channel j of an output projection, shape `(channels,)` (Eq. 2).

    Var is the sample variance over tokens, W_j the projection's column j. Deviation: the published code computes a
    different variance (see `prunelab.calibration.statistics`) and squares the attention's metric but not the MLP's;
    Eq. 2 does neither.
    """
    return statistics.of(layout.unit)[block].variance * column_norms(decoder, block, layout) ** 2


@register
class Flap(WidthMethod):
    """Remove key-value groups and MLP channels of lowest standardised fluctuation, all blocks in one ranking.

    Deviations: costs are exact for any head size, where the published code assumes multi-head attention with 128
    channels per head. Its other structures (attention and MLP separately, block by block) are the option
    `--competition` of all width methods.
    """

    name: ClassVar[str] = "flap"
    summary: ClassVar[str] = "remove the key-value groups and MLP channels with the lowest fluctuation"
    source: ClassVar[str] = "FLAP, An et al. 2024"

    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """The fluctuation of each input channel."""
        return fluctuation(evidence.decoder, evidence.statistics, block, layout)
