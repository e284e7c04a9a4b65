"""Ridge regression on second moments: how much of what was removed the kept channels can say.

Moments are sums over tokens of centred products, joined batch by batch in float64 (Chan, Golub and LeVeque 1979); a
batch's own products are taken in the activations' float32. The systems are solved in float64, by Cholesky.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-5
"""Relative to the mean eigenvalue of the inputs' covariance."""

DEFICIENT_RIDGE = 1e-3
"""Where tokens are no more than channels: the covariance has no full rank, and a small ridge would fit the tokens."""


@dataclass
class JointMoments:
    """Running moments of inputs and of what is to be said with them.

    Attributes:
        count: tokens seen.
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
        """Of no token."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        return cls(0, zeros(channels), zeros(targets), zeros(channels, channels), zeros(channels, targets))

    def add(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Take a batch in, of shapes `(tokens, channels)` and `(tokens, targets)`; without targets, none."""
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
        # In place, and widened while added: of a large model's moments, copies would be most of the memory.
        self.inputs.add_((x.T @ x).cpu()).addr_(shift, shift, alpha=between)
        self.cross.add_((x.T @ y).cpu()).addr_(shift, target_shift, alpha=between)
        self.input_mean += shift * (tokens / total)
        self.target_mean += target_shift * (tokens / total)
        self.count = total

    def fit(self) -> tuple[Tensor, Tensor]:
        """The map D and the constant b that make D x + b nearest to the targets.

        Minimises the mean squared error plus `ridge(...)` |D|^2, b being free. Since D = 0 is among the candidates,
        the error is never above that of the best constant alone.

        Returns:
            D of shape `(targets, channels)` and b of shape `(targets,)`, float64.
        """
        map_ = solve(self.inputs, self.cross, self.count)
        return map_, self.target_mean - map_ @ self.input_mean


def ridge(second_moments: Tensor, count: int) -> float:
    """What is added to the diagonal of the summed moments, by their own spectrum.

    Args:
        second_moments: summed over tokens, shape `(channels, channels)`.
        count: tokens summed over.
    """
    channels = len(second_moments)
    relative = RIDGE if count > channels else DEFICIENT_RIDGE
    return relative * second_moments.diagonal().sum().item() / max(channels, 1)


def solve(second_moments: Tensor, cross: Tensor, count: int) -> Tensor:
    """D = cross^T (M + ridge)^-1, shape `(targets, channels)`; zero where the inputs never vary."""
    added = ridge(second_moments, count)
    if not added > 0:
        return torch.zeros_like(cross.T)
    solution: Tensor = torch.cholesky_solve(cross, factored(second_moments, added)).T
    return solution


def factored(second_moments: Tensor, added: float) -> Tensor:
    """Lower Cholesky factor of the moments with this much on the diagonal, or ten, a hundred, ... times as much.

    A batch's products are rounded to float32. Where one direction says nearly everything, as massive activations of
    large models do, that can be more than a ridge by the mean eigenvalue, and leave eigenvalues below zero.

    Args:
        second_moments: shape `(channels, channels)`; changed meanwhile, and put back.
        added: positive.

    Raises:
        torch.linalg.LinAlgError: there are infinite moments, or some that are no number.
    """
    diagonal = second_moments.diagonal()
    own = diagonal.clone()
    factor: Tensor
    try:  # in place, as a copy of a large model's would be felt
        while added < own.sum():
            diagonal.copy_(own).add_(added)
            factor, failed = torch.linalg.cholesky_ex(second_moments)
            if not failed:
                return factor
            added *= 10
        diagonal.copy_(own).add_(added)
        factor = torch.linalg.cholesky(second_moments)
        return factor
    finally:
        diagonal.copy_(own)
