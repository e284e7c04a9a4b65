"""ReplaceMe: a linear map in place of a contiguous run of blocks (Shopkhoev et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.io.lazy import F, torch
from prunelab.pruning.allocation import KeptUnits, depth_count
from prunelab.pruning.methods import register
from prunelab.pruning.methods.angular import least_run
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.pruning.compensation import Compensation
    from prunelab.pruning.search.layerwise import Hidden, LayerwiseRunner


def cosine_distances(walk: LayerwiseRunner, length: int) -> Tensor:
    """1 - the mean over all tokens of cos(X_l, X_{l+n}), for every l, shape `(blocks + 1 - n,)`.

    The residual streams of n + 1 successive positions are in memory at once.

    Args:
        walk: the calibration tokens.
        length: n, the number of blocks in a run.
    """
    streams: list[Hidden] = [walk.start]
    distances: list[float] = []
    for block in range(len(walk.decoder.shapes)):
        streams.append(walk.through(block, streams[-1]))
        if len(streams) > length:
            before, after = streams.pop(0), streams[-1]
            cosines = [
                F.cosine_similarity(walk.counted(batch, x), walk.counted(batch, y), dim=-1).double()
                for batch, (x, y) in enumerate(zip(before, after, strict=True))
            ]
            distances.append(1 - torch.cat(cosines).mean().item())
    return torch.tensor(distances, dtype=torch.double)


@register
class ReplaceMe(PruningMethod):
    """Remove the run of blocks with the smallest cosine distance, and put a linear map in its place.

    The map is merged into the MLP before the run (`prunelab.pruning.compensation.linear_map`), so a run never begins
    at the first block.
    """

    name: ClassVar[str] = "replaceme"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "replace the consecutive blocks with the smallest cosine distance by a linear map"
    source: ClassVar[str] = "ReplaceMe, Shopkhoev et al. 2025"
    runs_model: ClassVar[bool] = True
    compensation: ClassVar[Compensation | None] = "linear_map"

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Remove the run with the smallest distance among those that do not begin at the first block."""
        shapes = evidence.decoder.shapes
        count = depth_count(shapes, budget.ratio, budget.constraints)
        if not count:
            return Decision(KeptUnits.everything(shapes))
        distances = cosine_distances(evidence.walk, count)
        first = least_run(distances, count, budget, len(shapes), earliest=1)
        return Decision(
            KeptUnits.everything(shapes).without_blocks(range(first, first + count)),
            details={"run": [first, first + count - 1], "distances": [round(d, 6) for d in distances.tolist()]},
        )
