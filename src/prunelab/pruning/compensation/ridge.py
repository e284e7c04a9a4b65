"""Ridge regression on second moments: the map from kept channels that comes nearest to what was removed.

The systems are solved in float64, by Cholesky.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration.joint_moments import JointMoments

RIDGE = 1e-5
"""Relative to the mean eigenvalue of the inputs' covariance."""

DEFICIENT_RIDGE = 1e-3
"""Where tokens are no more than channels: the covariance has no full rank, and a small ridge would fit the tokens."""


def fit(moments: JointMoments) -> tuple[Tensor, Tensor]:
    """The map D and the constant b that make D x + b nearest to the targets.

    Minimises the mean squared error plus `ridge(...)` |D|^2, b being free. Since D = 0 is among the candidates,
    the error is never above that of the best constant alone.

    Returns:
        D of shape `(targets, channels)` and b of shape `(targets,)`, float64.
    """
    map_ = solve(moments.inputs, moments.cross, moments.count)
    return map_, moments.target_mean - map_ @ moments.input_mean


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
