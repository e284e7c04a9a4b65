"""Random key-value groups and channels: the baseline of every width criterion."""

from __future__ import annotations

from typing import ClassVar

from prunelab.io.lazy import torch
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, ScoringMethod, Strategy
from prunelab.pruning.scores import ImportanceScores


@register
class RandomWidth(ScoringMethod):
    """Remove key-value groups and MLP channels at random with equal probability."""

    name: ClassVar[str] = "random_width"
    strategy: ClassVar[Strategy] = "width"
    summary: ClassVar[str] = "remove random key-value groups and MLP channels"
    source: ClassVar[str] = "baseline"
    needs_statistics: ClassVar[bool] = False
    is_random: ClassVar[bool] = True

    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """Uniform random numbers from the seed, one per unit; a group's number is not a mean over its channels."""
        generator = torch.Generator().manual_seed(evidence.seed)
        shapes = evidence.decoder.shapes

        def draw(count: int) -> torch.Tensor:
            return torch.rand(count, generator=generator, dtype=torch.double)

        return ImportanceScores(
            key_value_groups=tuple(draw(shape.key_value_groups) for shape in shapes),
            channels=tuple(draw(shape.channels) for shape in shapes),
        )
