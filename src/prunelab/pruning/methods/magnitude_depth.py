"""Block magnitude: remove the blocks with the smallest weights."""

from __future__ import annotations

from typing import ClassVar

from prunelab.io.lazy import torch
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import MethodInputs, ScoringMethod, Strategy
from prunelab.pruning.scores import ImportanceScores


@register
class MagnitudeDepth(ScoringMethod):
    """Remove the blocks whose projection weights are smallest.

    The score is the root mean square of all projection weights of a block, which is comparable across blocks of
    different widths (in a model that was pruned before). Deviation: the common baseline sums absolute values; for
    blocks of equal width the two rankings are nearly the same.
    """

    name: ClassVar[str] = "magnitude_depth"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "remove the blocks with the smallest weights"
    source: ClassVar[str] = "baseline"
    needs_statistics: ClassVar[bool] = False

    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """Root mean square of each block's projection weights."""
        decoder = evidence.decoder
        squares = torch.zeros(len(decoder.shapes), dtype=torch.double)
        for block, shape in enumerate(decoder.shapes):
            for layout in decoder.family.layouts():
                if shape.units(layout.part):
                    for path in (layout.output_projection, *(reader.path for reader in layout.input_projections)):
                        norm = torch.linalg.vector_norm(decoder.weight(block, path), dtype=torch.float32)
                        squares[block] += norm.cpu().double() ** 2
        costs = torch.tensor([max(shape.cost, 1) for shape in decoder.shapes])
        return ImportanceScores(blocks=(squares / costs).sqrt())
