"""One budget over blocks, sublayers, key-value groups and channels, spent where calibration loss says."""

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
"""The single methods that `auto` competes with: named, so that a plug-in changes no result of `auto`."""


@register
class Auto(PruningMethod):
    """Measure what every sublayer's every level costs, spend the budget on the cheapest, and look at the result.

    What is called loss here is how far predictions on held-out calibration text are from the whole model's (the mean
    Kullback-Leibler divergence of a token), not how well the text is predicted: a cut can predict a text better than
    the whole model by unlearning what that says too surely, and lose what the model knows.

    1. Every attention and MLP is cut to several levels in the optimal brain surgeon's order, repaired by least squares,
       and the held-out loss with that cut alone is measured, the trunk before it shared. This survey serves all ratios.
    2. Dynamic programming finds the levels of least summed loss within the budget; a sublayer's last level is its
       absence, and a block that loses both is dropped.
    3. Exchanges of a step between two sublayers are tried where the measured slopes promise most, and kept where the
       loss of the whole cut falls.
    4. What results is compensated layer by layer and sequentially, the two best cuts of single methods sequentially,
       and all are measured as they will be: the lowest loss wins. So the choice is never worse there than the best
       single method at the same budget.
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
            InvalidRequest: uniform widths are asked for, or the ratio is out of reach.
        """
        check_ratio(budget.ratio)
        if budget.group_counts is not None:
            raise InvalidRequest("auto gives every sublayer a width of its own: leave out --uniform, or use hybrid")
        if budget.ratio == 0:
            return Decision(KeptUnits.everything(evidence.decoder.shapes))
        _refuse_unreachable(evidence, budget)
        singles = list(_singles(evidence, budget))
        search, before = LevelSearch.of(evidence, budget)
        found, own = search.run(), evidence.compensation
        cuts = [("search", found, own), *((name, kept, own) for name, kept, _, _ in singles[:2])]
        if own == "sequential":
            cuts.append(("search", found, "least_squares"))
        tried = [(name, kept, how, evidence.divergence(kept, how)) for name, kept, how in cuts] + singles
        name, kept, how, loss = min(tried, key=lambda one: one[3])
        beaten = f"; the best single method, {singles[0][0]}, is {singles[0][3]:.4f} away" if singles else ""
        return Decision(
            kept,
            notes=(f"chosen by {name}: on held-out text {loss:.4f} nats a token from the whole model{beaten}",),
            details={
                "chosen_by": name,
                "tried": [{"by": by, "compensation": with_, "loss": round(value, 6)} for by, _, with_, value in tried],
                "measured_cuts": search.measured,
                "search_passes": round(search.trunk.passes - before, 2),
            },
            compensation=how,
        )


def _refuse_unreachable(evidence: MethodInputs, budget: Budget) -> None:
    """Before anything is measured, refuse more than the blocks that may be cut hold."""
    shapes = evidence.decoder.shapes
    able = [shapes[block] for block in budget.constraints.removable(len(shapes))]
    most = sum(shape.cost for shape in able) / evidence.decoder.cost
    if budget.ratio > most:
        raise InvalidRequest(
            f"ratio {budget.ratio:g} is out of reach: the blocks that may be cut hold {most:.3g} of the weights; ask "
            "for less, or protect fewer blocks"
        )


def _singles(evidence: MethodInputs, budget: Budget) -> Iterator[tuple[str, KeptUnits, Compensation, float]]:
    """The single methods' cuts with their own compensation and their losses, the best first.

    Only those at the same budget, to half a unit, and that remove something: one that moves in whole blocks and removes
    less would win by that.
    """
    found: list[tuple[str, KeptUnits, Compensation, float]] = []
    shapes = evidence.decoder.shapes
    unit = max(max(shape.group_cost, shape.channel_cost) for shape in shapes)
    for method in map(methods.__getitem__, RIVALS):
        how: Compensation = method.compensation or ("none" if method.strategy == "depth" else "bias")
        if evidence.compensation != "sequential":
            how = evidence.compensation if method.strategy != "depth" else "none"
        own = replace(evidence, compensation=how)
        try:
            kept = method.decide(own, budget).kept
        except InvalidRequest:  # this method cannot reach the budget
            continue
        removed = achieved_ratio(shapes, kept)
        if removed > 0 and abs(removed - budget.ratio) <= unit / 2 / evidence.decoder.cost + 1e-9:
            found.append((method.name, kept, how, evidence.divergence(kept, how)))
    return iter(sorted(found, key=lambda one: one[3]))
