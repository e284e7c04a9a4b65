"""Importance of units, and the shared arithmetic of turning raw scores into a ranking."""

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
    """How much each unit matters: higher means keep.

    Attributes:
        blocks: one score a block, shape `(blocks,)`; None for a width method.
        key_value_groups: for each block, one score a key-value group, shape `(groups,)`; None for a depth method.
        channels: for each block, one score an MLP channel, shape `(channels,)`; None for a depth method.
    """

    blocks: Tensor | None = None
    key_value_groups: tuple[Tensor, ...] | None = None
    channels: tuple[Tensor, ...] | None = None


def standardise(scores: Tensor) -> Tensor:
    """Zero mean and unit sample deviation over one module's channels (FLAP, Eq. 3).

    Scores that are all alike carry no ranking and come out as zeros.
    """
    scores = scores.double()
    if scores.numel() < 2:
        return torch.zeros_like(scores)
    deviation = scores.std()
    # Equal scores differ by rounding alone: their deviation is noise, and dividing by it would rank noise.
    if deviation <= 1e-12 * scores.abs().max():
        return torch.zeros_like(scores)
    return (scores - scores.mean()) / deviation


def width_scores(
    shapes: Sequence[BlockShape],
    attention: Callable[[int], Tensor],
    mlp: Callable[[int], Tensor],
) -> ImportanceScores:
    """Rank all units of all blocks together, as FLAP does.

    Args:
        shapes: the blocks' widths.
        attention: for a block, one raw score an input channel of the attention's output projection.
        mlp: for a block, one raw score an MLP channel.

    Returns:
        Scores standardised for each block and module; a key-value group's is the mean over its channels.
    """
    groups, channels = [], []
    for block, shape in enumerate(shapes):
        heads = standardise(attention(block)) if shape.key_value_groups else torch.zeros(0, dtype=torch.double)
        groups.append(heads.reshape(shape.key_value_groups, -1).mean(dim=1) if len(heads) else heads)
        channels.append(standardise(mlp(block)) if shape.channels else torch.zeros(0, dtype=torch.double))
    return ImportanceScores(key_value_groups=tuple(groups), channels=tuple(channels))
