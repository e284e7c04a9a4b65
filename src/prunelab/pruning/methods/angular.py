"""Angular: remove the contiguous run of blocks with the smallest angular distance (Gromov et al. 2024)."""

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
    """The residual stream at every sample's last token, before each block and after the last.

    Returns:
        Shape `(blocks + 1, samples, hidden)`, float32, on the CPU.
    """
    hidden, last_tokens = walk.start, []
    for block in range(len(walk.decoder.shapes) + 1):
        last_tokens.append(torch.cat([walk.last(batch, states) for batch, states in enumerate(hidden)]))
        if block < len(walk.decoder.shapes):
            hidden = walk.through(block, hidden)
    return torch.stack(last_tokens)


def angular_distances(states: Tensor, length: int) -> Tensor:
    """d(l, l + n) = arccos(cos(X_l, X_{l+n})) / pi, the mean over samples, for every l, shape `(blocks + 1 - n,)`.

    Args:
        states: shape `(blocks + 1, samples, hidden)`.
        length: n, the number of blocks in a run.
    """
    before, after = states[: len(states) - length].double(), states[length:].double()
    cosines = torch.nn.functional.cosine_similarity(before, after, dim=-1).clamp(-1, 1)
    return cosines.arccos().mean(dim=1) / torch.pi


@register
class Angular(PruningMethod):
    """Remove the run of blocks with the smallest angular distance between its input and output at the last token.

    One pass over the calibration tokens, block by block. Of two runs with equal distances the earlier one is removed.
    """

    name: ClassVar[str] = "angular"
    strategy: ClassVar[Strategy] = "depth"
    summary: ClassVar[str] = "remove the consecutive blocks with the smallest angular distance between input and output"
    source: ClassVar[str] = "Gromov et al. 2024"
    runs_model: ClassVar[bool] = True

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Remove the run with the smallest distance."""
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
    """Index of the first block of the run with the smallest distance among the runs that the constraints allow.

    Raises:
        InvalidRequest: the constraints allow no run of that length.
    """
    span = budget.constraints.removable(blocks)
    able = range(max(span.start, earliest), span.stop - count + 1)
    if not able:
        raise InvalidRequest(
            f"ratio {budget.ratio:g} needs a run of {count} blocks, but the constraints leave no run of that length: "
            "request less, or protect fewer blocks"
        )
    return min(able, key=lambda first: (distances[first].item(), first))
