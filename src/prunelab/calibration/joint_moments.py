"""Running second moments of the inputs of a projection, and of inputs with targets.

Moments are sums over tokens of centred products, merged batch by batch in float64 (Chan, Golub and LeVeque 1979); the
products within a batch are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class JointMoments:
    """Running first and second moments of inputs and regression targets.

    Attributes:
        count: tokens.
        input_mean: shape `(channels,)`, float64.
        target_mean: shape `(targets,)`, float64.
        inputs: centred second moments of the inputs, summed over tokens, shape `(channels, channels)`, float64.
        cross: centred products of inputs and targets, summed over tokens, shape `(channels, targets)`, float64.
    """

    count: int
    input_mean: Tensor
    target_mean: Tensor
    inputs: Tensor
    cross: Tensor

    @classmethod
    def none(cls, channels: int, targets: int) -> JointMoments:
        """The moments of no tokens."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        return cls(0, zeros(channels), zeros(targets), zeros(channels, channels), zeros(channels, targets))

    def add(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Add a batch of inputs, shape `(tokens, channels)`, and targets, shape `(tokens, targets)`; None for none."""
        tokens = len(inputs)
        if not tokens:
            return
        targets = inputs[:, :0] if targets is None else targets
        input_mean, target_mean = inputs.mean(dim=0), targets.mean(dim=0)
        x, y = inputs - input_mean, targets - target_mean
        shift = input_mean.cpu().double() - self.input_mean
        target_shift = target_mean.cpu().double() - self.target_mean
        total = self.count + tokens
        between = self.count * tokens / total
        # In place, and widened during the addition: copies of a large model's moments would dominate the memory.
        self.inputs.add_((x.T @ x).cpu()).addr_(shift, shift, alpha=between)
        self.cross.add_((x.T @ y).cpu()).addr_(shift, target_shift, alpha=between)
        self.input_mean += shift * (tokens / total)
        self.target_mean += target_shift * (tokens / total)
        self.count = total
