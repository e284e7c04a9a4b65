"""ShortGPT: remove the blocks that change their input least (Men et al. 2024, Block Influence)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, ScoringMethod, Strategy
from prunelab.pruning.scores import ImportanceScores

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import ActivationStatistics


def block_influence(statistics: ActivationStatistics) -> Tensor:
    """BI_i = 1 - mean over tokens of cos(X_{i-1}, X_i), shape `(blocks,)`, higher = keep.

    X_{i-1} and X_i are the hidden states before and after block i. Deviation: the TMLR 2025 study's formula is a plain
    dot product; its text and ShortGPT's code use the cosine, as this function does.
    """
    return 1 - statistics.cosine_sum / statistics.tokens


@register
class ShortGPT(ScoringMethod):
    """Remove the blocks of lowest Block Influence."""

    name: ClassVar[str] = "shortgpt"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "remove the blocks with the lowest Block Influence"
    source: ClassVar[str] = "ShortGPT, Men et al. 2024"

    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """Block Influence of each block."""
        return ImportanceScores(blocks=block_influence(evidence.statistics))
