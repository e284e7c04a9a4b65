"""Angular: the contiguous run of blocks that turns the residual stream least (Gromov et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import torch
from prunelab.pruning.allocation import KeptUnits, depth_count
from prunelab.pruning.methods import register
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.pruning.search.layerwise import LayerwiseRunner


def last_states(walk: LayerwiseRunner) -> Tensor:
    """The residual stream at every sample's last token, before each block and behind the last.

    Returns:
        Shape `(blocks + 1, samples, hidden)`, float32, on the CPU.
    """
    hidden, found = walk.start, []
    for block in range(len(walk.decoder.shapes) + 1):
        found.append(torch.cat([walk.last(batch, states) for batch, states in enumerate(hidden)]))
        if block < len(walk.decoder.shapes):
            hidden = walk.through(block, hidden)
    return torch.stack(found)


def angular_distances(states: Tensor, length: int) -> Tensor:
    """d(l, l + n) = arccos(cos(X_l, X_{l+n})) / pi, the mean over samples, for every l, shape `(blocks + 1 - n,)`.

    Args:
        states: shape `(blocks + 1, samples, hidden)`.
        length: n, the blocks of a run.
    """
    before, behind = states[: len(states) - length].double(), states[length:].double()
    cosines = torch.nn.functional.cosine_similarity(before, behind, dim=-1).clamp(-1, 1)
    return cosines.arccos().mean(dim=1) / torch.pi


@register
class Angular(PruningMethod):
    """Remove the run of so many blocks as the budget asks for whose absence turns the last token's state least.

    One pass over the calibration tokens, block by block. Where two runs are alike the earlier one goes.
    """

    name: ClassVar[str] = "angular"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "remove the consecutive blocks with the smallest angular distance between input and output"
    source: ClassVar[str] = "Gromov et al. 2024"
    runs_model: ClassVar[bool] = True

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """The run of least distance."""
        shapes = evidence.decoder.shapes
        count = depth_count(shapes, budget.ratio, budget.constraints)
        if not count:
            return Decision(KeptUnits.everything(shapes))
        distances = angular_distances(evidence.shared.once(self.name, lambda: last_states(evidence.walk)), count)
        first = least_run(distances, count, budget, len(shapes))
        return Decision(
            KeptUnits.everything(shapes).without_blocks(range(first, first + count)),
            details={"run": [first, first + count - 1], "distances": [round(d, 6) for d in distances.tolist()]},
        )


def least_run(distances: Tensor, count: int, budget: Budget, blocks: int, earliest: int = 0) -> int:
    """Where the run of least distance begins, of those that the constraints allow.

    Raises:
        InvalidRequest: no run of that length may go.
    """
    span = budget.constraints.removable(blocks)
    able = range(max(span.start, earliest), span.stop - count + 1)
    if not able:
        raise InvalidRequest(
            f"ratio {budget.ratio:g} takes a run of {count} blocks, and between those that stay there is none: ask for "
            "less, or protect fewer blocks"
        )
    return min(able, key=lambda first: (distances[first].item(), first))
