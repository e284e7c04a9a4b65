"""Importance scores of units, and their standardisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.families import BlockShape


@dataclass(frozen=True)
class ImportanceScores:
    """Importance of each unit; higher = keep.

    Attributes:
        blocks: one score per block, shape `(blocks,)`; None for a width method.
        key_value_groups: for each block, one score per key-value group, shape `(groups,)`; None for a depth method.
        channels: for each block, one score per MLP channel, shape `(channels,)`; None for a depth method.
    """

    blocks: Tensor | None = None
    key_value_groups: tuple[Tensor, ...] | None = None
    channels: tuple[Tensor, ...] | None = None


def standardise(scores: Tensor) -> Tensor:
    """Scale scores to zero mean and unit sample standard deviation over one module's channels (FLAP, Eq. 3).

    Scores that are equal up to rounding give zeros: they carry no ranking.
    """
    scores = scores.double()
    if scores.numel() < 2:
        return torch.zeros_like(scores)
    deviation = scores.std()
    # The deviation of equal scores is rounding noise; dividing by it would rank noise.
    if deviation <= 1e-12 * scores.abs().max():
        return torch.zeros_like(scores)
    return (scores - scores.mean()) / deviation


def width_scores(
    shapes: Sequence[BlockShape],
    attention: Callable[[int], Tensor],
    mlp: Callable[[int], Tensor],
) -> ImportanceScores:
    """Standardise raw scores so that units of all blocks and kinds compete in one ranking (FLAP, Eq. 3).

    Args:
        shapes: the blocks' shapes.
        attention: for a block, one raw score per input channel of the attention's output projection.
        mlp: for a block, one raw score per MLP channel.

    Returns:
        Scores standardised per block and module; a key-value group's score is the mean over its channels.
    """
    groups, channels = [], []
    for block, shape in enumerate(shapes):
        heads = standardise(attention(block)) if shape.key_value_groups else torch.zeros(0, dtype=torch.double)
        groups.append(heads.reshape(shape.key_value_groups, -1).mean(dim=1) if len(heads) else heads)
        channels.append(standardise(mlp(block)) if shape.channels else torch.zeros(0, dtype=torch.double))
    return ImportanceScores(key_value_groups=tuple(groups), channels=tuple(channels))
