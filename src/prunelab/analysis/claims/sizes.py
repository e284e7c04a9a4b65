"""C11: small models degrade on all benchmarks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import ACCURACY, MATCHED, Evidence, MeasuredCut, keys_of
from prunelab.analysis.claims.gemma import lost_more
from prunelab.analysis.claims.rules import any_significant, every, fell
from prunelab.analysis.claims.trials import Effect, difference_trial, mean_trial

SMALL = 4e9
LARGE = 6e9
NAMED = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*b(?![a-z])", re.IGNORECASE)


@register
class Sizes(Claim):
    """Small models, alone and compared with large ones."""

    name: ClassVar[str] = "C11"
    statement: ClassVar[str] = "Small models degrade on all benchmarks, more than large models do, and first on GSM8K."
    test: ClassVar[str] = (
        "Requires models below 4 and above 6 billion parameters: in a small model's largest cut of each strategy, "
        "every accuracy benchmark falls significantly (paired, Holm); at matched ratios, its mean lost share exceeds "
        "a large model's, and in its smallest cuts, GSM8K's lost share exceeds the mean of the others', each "
        "significantly at least once (z-test, Holm) and never significantly the opposite."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: all benchmarks fall, larger losses than large models, GSM8K first."""
        sizes = {model: size for model in evidence.models if (size := parameters(evidence, model)) is not None}
        small = [model for model, size in sizes.items() if size < SMALL]
        large = [model for model, size in sizes.items() if size > LARGE]
        if not small or not large:
            needs = "models below 4 and above 6 billion parameters in one run"
            return [ClaimPart("small models compared with large ones", Verdict.NOT_MEASURED, needs)]
        strategies = ("depth", "width")
        by_strategy = [cuts for model in small for s in strategies if (cuts := evidence.cuts(s, model))]
        throughout = [
            (effect, fell(effect)) for effect in evidence.losses([cuts[-1] for cuts in by_strategy], ACCURACY)
        ]
        first = [effect for cuts in by_strategy if (effect := _gsm8k_first(evidence, cuts[0])) is not None]
        more = [
            effect
            for cuts in by_strategy
            for cut in cuts
            for model in large
            for large_cut in evidence.cuts(cut.strategy, model)
            if abs(large_cut.achieved_ratio - cut.achieved_ratio) <= MATCHED
            and (effect := lost_more(evidence, cut, large_cut)) is not None
        ]
        return [
            every("small models degrade on all benchmarks", throughout, "an accuracy benchmark on a small model's cut"),
            any_significant(
                "more than the large ones", more, "an accuracy benchmark on cuts of one size, small and large"
            ),
            any_significant("GSM8K first", first, "gsm8k and another accuracy benchmark on a small model's cut"),
        ]


def parameters(evidence: Evidence, model: str) -> float | None:
    """The dense model's number of parameters: as measured, from a plan, or from the model's name."""
    measured = evidence.figure(model, "throughput", "parameters")
    if measured is not None:
        return measured.value
    for plan in evidence.run.planned.values():
        if plan.model == model:
            return float(plan.parameters)
    named = NAMED.search(model)
    return 1e9 * float(named.group(1)) if named else None


def _gsm8k_first(evidence: Evidence, cut: MeasuredCut) -> Effect | None:
    """GSM8K's lost share minus the mean of the other benchmarks'."""
    gsm8k_loss = evidence.loss(cut, "gsm8k")
    other_losses = evidence.losses([cut], [name for name in ACCURACY if name != "gsm8k"])
    if gsm8k_loss is None or not other_losses:
        return None
    keys: dict[str, str | float] = {**keys_of(cut), "benchmark": "gsm8k"}
    mean = mean_trial(keys, other_losses)
    return difference_trial({**keys, "lost": gsm8k_loss.effect, "others lost": mean.effect}, gsm8k_loss, mean)
