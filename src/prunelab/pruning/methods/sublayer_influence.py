"""Sublayer influence: the attentions and MLPs that change the residual stream least (He et al. 2024, LLM-Drop)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.io.lazy import F
from prunelab.pruning.methods import register
from prunelab.pruning.methods.sublayer import SublayerMethod, SublayerPosition, drop_until

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.pruning.methods.base import Budget, MethodInputs
    from prunelab.pruning.search.layerwise import LayerwiseRunner


@register
class SublayerInfluence(SublayerMethod):
    """Remove the attentions and MLPs that change the residual stream least.

    A sublayer's influence is one minus the mean cosine between the residual stream before and after it, by analogy with
    Block Influence (LLM-Drop's importance). It takes one pass over the calibration tokens, block by block.
    """

    name: ClassVar[str] = "sublayer_influence"
    summary: ClassVar[str] = "remove the attention and MLP sublayers that change the residual stream least"
    source: ClassVar[str] = "LLM-Drop, He et al. 2024"
    runs_model: ClassVar[bool] = True

    def dropped(self, evidence: MethodInputs, budget: Budget) -> tuple[list[SublayerPosition], dict[str, Any]]:
        """Remove the sublayers in ascending order of influence."""
        influence = evidence.shared.once(self.name, lambda: sublayer_influence(evidence))
        removed = drop_until(
            evidence.decoder, budget, lambda removed, able: min(able, key=lambda place: (influence[place], place))
        )
        return removed, {}


def sublayer_influence(evidence: MethodInputs) -> dict[SublayerPosition, float]:
    """1 - mean cosine of the residual stream before and after each sublayer.

    Raises:
        InvalidRequest: there are no calibration tokens.
    """
    decoder, walk = evidence.decoder, evidence.walk
    attention, mlp = decoder.family.layouts()
    hidden, influence = walk.start, {}
    for block in range(len(decoder.shapes)):
        cosines: dict[str, list[Tensor]] = {attention.output_projection: [], mlp.output_projection: []}
        outputs = []
        for batch, activations in enumerate(walk.watch(block, hidden)):
            assert activations.output is not None
            middle = (
                hidden[batch] + activations.added[attention.output_projection]
                if attention.output_projection in activations.added
                else hidden[batch]
            )
            for layout, before, after in ((attention, hidden[batch], middle), (mlp, middle, activations.output)):
                cosines[layout.output_projection].append(_cosines(walk, batch, before, after))
            outputs.append(activations.output)
        for layout in (attention, mlp):
            influence[block, layout.output_projection] = 1 - _mean(cosines[layout.output_projection])
        hidden = outputs
    return influence


def _mean(values: list[Tensor]) -> float:
    """Mean over all tokens."""
    return sum(v.double().sum().item() for v in values) / sum(v.numel() for v in values)


def _cosines(walk: LayerwiseRunner, batch: int, before: Tensor, after: Tensor) -> Tensor:
    return F.cosine_similarity(walk.counted(batch, before), walk.counted(batch, after), dim=-1)
