"""Activation norm: remove the units with the smallest activations (Muralidharan et al. 2024, Minitron)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, WidthMethod

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import ActivationStatistics
    from prunelab.models.layout import UnitLayout


def activation_sizes(statistics: ActivationStatistics, block: int, layout: UnitLayout) -> Tensor:
    """Root mean square over tokens of each input channel of an output projection, shape `(channels,)`."""
    moments = statistics.of(layout.unit)[block]
    return (moments.mean.square() + moments.deviations / max(moments.count, 1)).sqrt()


@register
class ActivationNorm(WidthMethod):
    """Remove the key-value groups and MLP channels whose activations are smallest.

    Deviations: Minitron averages absolute values over the tokens of a sample and takes the norm over samples (the best
    of its variants); this is the norm over all tokens, which the moments of one pass give. Minitron ranks within each
    block and gives all blocks one width, as `--uniform` does; by default all blocks compete, as in `flap`.
    """

    name: ClassVar[str] = "activation_norm"
    summary: ClassVar[str] = "remove the key-value groups and MLP channels with the smallest activations"
    source: ClassVar[str] = "Minitron, Muralidharan et al. 2024"

    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """Root mean square of the activations."""
        return activation_sizes(evidence.statistics, block, layout)
