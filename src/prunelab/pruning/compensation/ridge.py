"""Ridge regression on second moments: the linear map from kept channels that best predicts the removed output.

The systems are solved in float64 by Cholesky decomposition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration.joint_moments import JointMoments

RIDGE = 1e-5
"""Ridge relative to the mean eigenvalue of the inputs' covariance."""

DEFICIENT_RIDGE = 1e-3
"""Ridge if there are no more tokens than channels: the covariance is rank-deficient, and `RIDGE` would overfit."""


def fit(moments: JointMoments) -> tuple[Tensor, Tensor]:
    """The map D and the constant b that minimise the error of D x + b.

    Minimises the mean squared error plus `ridge(...)` |D|^2; b is not penalised. Since D = 0 is feasible, the error is
    never larger than that of the best constant.

    Returns:
        D of shape `(targets, channels)` and b of shape `(targets,)`, float64.
    """
    map_ = solve(moments.inputs, moments.cross, moments.count)
    return map_, moments.target_mean - map_ @ moments.input_mean


def ridge(second_moments: Tensor, count: int) -> float:
    """The value added to the diagonal of the summed moments.

    Args:
        second_moments: summed over tokens, shape `(channels, channels)`.
        count: number of tokens.
    """
    channels = len(second_moments)
    relative = RIDGE if count > channels else DEFICIENT_RIDGE
    return relative * second_moments.diagonal().sum().item() / max(channels, 1)


def solve(second_moments: Tensor, cross: Tensor, count: int) -> Tensor:
    """D = cross^T (M + ridge)^-1, shape `(targets, channels)`; zero if the inputs are constant."""
    added = ridge(second_moments, count)
    if not added > 0:
        return torch.zeros_like(cross.T)
    solution: Tensor = torch.cholesky_solve(cross, factored(second_moments, added)).T
    return solution


def factored(second_moments: Tensor, added: float) -> Tensor:
    """Lower Cholesky factor of the moments plus `added` on the diagonal, which is multiplied by 10 until it succeeds.

    A batch's products are rounded to float32. Where one direction dominates, as with massive activations of large
    models, the rounding error can exceed the ridge and leave negative eigenvalues.

    Args:
        second_moments: shape `(channels, channels)`; modified in place and restored.
        added: positive.

    Raises:
        torch.linalg.LinAlgError: a moment is NaN or infinite.
    """
    diagonal = second_moments.diagonal()
    original = diagonal.clone()
    factor: Tensor
    try:  # in place: a copy of a large model's moments would be expensive
        while added < original.sum():
            diagonal.copy_(original).add_(added)
            factor, failed = torch.linalg.cholesky_ex(second_moments)
            if not failed:
                return factor
            added *= 10
        diagonal.copy_(original).add_(added)
        factor = torch.linalg.cholesky(second_moments)
        return factor
    finally:
        diagonal.copy_(original)
