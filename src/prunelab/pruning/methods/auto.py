"""One budget over blocks, sublayers, key-value groups and channels, allocated by measured loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.pruning.allocation import KeptUnits, achieved_ratio, check_ratio
from prunelab.pruning.methods import methods, register
from prunelab.pruning.methods.base import Budget, Decision, MethodInputs, PruningMethod, Strategy
from prunelab.pruning.search.level_search import LevelSearch

if TYPE_CHECKING:
    from prunelab.pruning.compensation import Compensation

RIVALS = (
    "activation_norm", "angular", "magnitude_width", "flap", "greedy_depth", "shortgpt", "hybrid", "magnitude_depth",
    "replaceme", "sublayer", "sublayer_influence", "two_stage", "wanda_sp",
)  # fmt: skip
"""The single methods that `auto` compares with; a fixed list, so that plug-ins do not change `auto`'s results."""


@register
class Auto(PruningMethod):
    """Measure the loss of every level of every sublayer, spend the budget on the cheapest, and measure the result.

    "Loss" here is the mean Kullback-Leibler divergence per token from the dense model's predictions on held-out
    calibration text, not the loss of the text: a pruned model can predict a text better than the dense model by losing
    the dense model's overconfidence, and still lose what the dense model knows.

    1. Every attention and MLP is pruned to several levels in the optimal brain surgeon's order and compensated by least
       squares, and the held-out loss with that sublayer alone pruned is measured; prefixes are reused. All ratios share
       these measurements.
    2. Dynamic programming finds the levels with the smallest summed loss within the budget; a sublayer's last level is
       its removal, and a block that loses both sublayers is dropped.
    3. Exchanges of one step between two sublayers are tried in the order of their estimated loss, and kept if the
       measured loss falls.
    4. The result is compensated by least squares and sequentially, the two best plans of single methods sequentially,
       and all are measured with their compensation; the lowest loss wins. On the held-out text the choice is therefore
       never worse than the best single method at the same budget.
    """

    name: ClassVar[str] = "auto"
    strategy: ClassVar[Strategy] = "hybrid"
    summary: ClassVar[str] = "choose blocks, sublayers, groups and channels under one budget, by loss on held-out text"
    source: ClassVar[str] = "prunelab"
    needs_loss: ClassVar[bool] = True
    needs_moments: ClassVar[bool] = True
    compensation: ClassVar[Compensation | None] = "sequential"

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Search, then compare with every single method.

        Raises:
            InvalidRequest: uniform widths are requested, or the ratio is out of reach.
        """
        check_ratio(budget.ratio)
        if budget.group_counts is not None:
            raise InvalidRequest("auto gives sublayers different widths: leave out --uniform, or use hybrid")
        if budget.ratio == 0:
            return Decision(KeptUnits.everything(evidence.decoder.shapes))
        _refuse_unreachable(evidence, budget)
        singles = list(_singles(evidence, budget))
        search, before = LevelSearch.of(evidence, budget)
        search_result, default = search.run(), evidence.compensation
        cuts = [("search", search_result, default), *((name, kept, default) for name, kept, _, _ in singles[:2])]
        if default == "sequential":
            cuts.append(("search", search_result, "least_squares"))
        tried = [(name, kept, how, evidence.divergence(kept, how)) for name, kept, how in cuts] + singles
        name, kept, how, loss = min(tried, key=lambda candidate: candidate[3])
        runner_up = f"; the best single method, {singles[0][0]}, has {singles[0][3]:.4f}" if singles else ""
        return Decision(
            kept,
            notes=(
                f"selected {name}: divergence from the dense model on held-out text {loss:.4f} nats per token"
                f"{runner_up}",
            ),
            details={
                "chosen_by": name,
                "tried": [{"by": by, "compensation": with_, "loss": round(value, 6)} for by, _, with_, value in tried],
                "measured_cuts": search.measured,
                "search_passes": round(search.trunk.passes - before, 2),
            },
            compensation=how,
        )


def _refuse_unreachable(evidence: MethodInputs, budget: Budget) -> None:
    """Raise InvalidRequest, before anything is measured, if the ratio exceeds the share of the prunable blocks."""
    shapes = evidence.decoder.shapes
    able = [shapes[block] for block in budget.constraints.removable(len(shapes))]
    most = sum(shape.cost for shape in able) / evidence.decoder.cost
    if budget.ratio > most:
        raise InvalidRequest(
            f"ratio {budget.ratio:g} is out of reach: the blocks that may be pruned hold {most:.3g} of the weights; "
            "request less, or protect fewer blocks"
        )


def _singles(evidence: MethodInputs, budget: Budget) -> Iterator[tuple[str, KeptUnits, Compensation, float]]:
    """The single methods' plans with their default compensation and their losses, the lowest loss first.

    Only plans at the same budget, to half a unit, that remove something: a depth method that removes less than the
    budget would win for that reason.
    """
    singles: list[tuple[str, KeptUnits, Compensation, float]] = []
    shapes = evidence.decoder.shapes
    unit = max(max(shape.group_cost, shape.channel_cost) for shape in shapes)
    for method in map(methods.__getitem__, RIVALS):
        how: Compensation = method.compensation or ("none" if method.strategy == "depth" else "bias")
        if evidence.compensation != "sequential":
            how = evidence.compensation if method.strategy != "depth" else "none"
        inputs = replace(evidence, compensation=how)
        try:
            kept = method.decide(inputs, budget).kept
        except InvalidRequest:  # this method cannot reach the budget
            continue
        removed = achieved_ratio(shapes, kept)
        if removed > 0 and abs(removed - budget.ratio) <= unit / 2 / evidence.decoder.cost + 1e-9:
            singles.append((method.name, kept, how, evidence.divergence(kept, how)))
    return iter(sorted(singles, key=lambda single: single[3]))
