"""Random blocks: the baseline of every depth criterion."""

from __future__ import annotations

from typing import ClassVar

from prunelab.io.lazy import torch
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, ScoringMethod, Strategy
from prunelab.pruning.scores import ImportanceScores


@register
class RandomDepth(ScoringMethod):
    """Remove blocks at random."""

    name: ClassVar[str] = "random_depth"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "remove random blocks"
    source: ClassVar[str] = "baseline"
    needs_statistics: ClassVar[bool] = False
    is_random: ClassVar[bool] = True

    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """Uniform random numbers from the seed."""
        generator = torch.Generator().manual_seed(evidence.seed)
        blocks = len(evidence.decoder.shapes)
        return ImportanceScores(blocks=torch.rand(blocks, generator=generator, dtype=torch.double))
