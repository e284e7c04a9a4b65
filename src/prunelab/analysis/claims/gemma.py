"""C5: width pruning degrades Gemma-2 the most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import ACCURACY, MATCHED, Evidence, MeasuredCut, keys_of
from prunelab.analysis.claims.rules import any_significant
from prunelab.analysis.claims.trials import Effect, difference_trial, mean_trial


@register
class Gemma(Claim):
    """Gemma-2 compared with every other family."""

    name: ClassVar[str] = "C5"
    statement: ClassVar[str] = "Of all model families, Gemma-2 degrades most under width pruning."
    test: ClassVar[str] = (
        "Under width pruning at matched ratios, the lost share, averaged over the accuracy benchmarks on which both "
        "models are above chance, is larger for Gemma-2 than for every other model, significantly at least once "
        "(z-test, Holm) and never significantly smaller."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """One part per model of another family."""
        gemmas = [model for model in evidence.models if is_gemma2(evidence, model)]
        others = [model for model in evidence.models if model not in gemmas]
        needs = "an accuracy benchmark under width, at matched ratios, of a Gemma-2 model and of one of another family"
        if not gemmas or not others:
            return [ClaimPart("Gemma-2 compared with others", Verdict.NOT_MEASURED, needs)]
        return [any_significant(f"compared with {other}", _against(evidence, gemmas, other), needs) for other in others]


def is_gemma2(evidence: Evidence, model: str) -> bool:
    """Whether a model is a Gemma-2, by the family in its plans, or else by its name."""
    for plan in evidence.run.planned.values():
        if plan.model == model:
            return plan.family == "gemma2"
    return "gemma2" in re.sub(r"[^a-z0-9]", "", model.lower())


def _against(evidence: Evidence, gemmas: Sequence[str], other_model: str) -> list[Effect]:
    """Gemma-2's mean lost share minus the other model's, for each pair of cuts of matched size."""
    gemma_cuts = [cut for name in gemmas for cut in evidence.cuts("width", name)]
    cuts = [
        (gemma_cut, other_cut) for gemma_cut in gemma_cuts for other_cut in _sized(evidence, other_model, gemma_cut)
    ]
    return [trial for gemma_cut, other_cut in cuts if (trial := lost_more(evidence, gemma_cut, other_cut)) is not None]


def _sized(evidence: Evidence, model: str, like: MeasuredCut) -> list[MeasuredCut]:
    """The model's width cut that is closest in size to another model's."""
    near = evidence.cuts("width", model, like.achieved_ratio - MATCHED, like.achieved_ratio + MATCHED)
    return sorted(near, key=lambda cut: abs(cut.achieved_ratio - like.achieved_ratio))[:1]


def lost_more(evidence: Evidence, first_cut: MeasuredCut, second_cut: MeasuredCut) -> Effect | None:
    """One cut's mean lost share minus that of another model's cut, over the benchmarks that both have."""
    both = [(evidence.loss(first_cut, name), evidence.loss(second_cut, name)) for name in ACCURACY]
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if not pairs:
        return None
    keys: dict[str, str | float] = {**keys_of(first_cut), "other": second_cut.model}
    means = [mean_trial(keys, losses) for losses in zip(*pairs, strict=True)]
    lost = {"benchmarks": float(len(pairs)), "lost": means[0].effect, "other lost": means[1].effect}
    return difference_trial({**keys, **lost}, means[0], means[1])
