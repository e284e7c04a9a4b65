"""C12: few-shot examples change a pruned model's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import Evidence, MeasuredCut, compared, keys_of
from prunelab.analysis.claims.rules import HARDLY, most_significant, rows, within
from prunelab.analysis.claims.trials import Effect, adjusted, trial_of


@register
class Shots(Claim):
    """The smallest number of shots compared with the largest, on the same samples."""

    name: ClassVar[str] = "C12"
    statement: ClassVar[str] = "Few-shot examples in the prompt change a pruned model's results."
    test: ClassVar[str] = (
        "In at least one depth, width or hybrid cut, a benchmark's result differs significantly between the smallest "
        "and the largest number of shots (paired on the same samples, Holm); contradicted if every 95 % interval lies "
        f"within {HARDLY:.0%} of the dense result."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """One part for the pruned models; the evidence also lists the dense models' changes."""
        benchmarks = dict.fromkeys(m.benchmark for m in evidence.run.measurements if m.shots is not None)
        pairs = [(cut, name) for cut in evidence.cuts() for name in benchmarks]
        changes = [(cut, change) for cut, name in pairs if (change := _change(evidence, cut, name)) is not None]
        part = "more shots"
        if not changes:
            return [
                ClaimPart(part, Verdict.NOT_MEASURED, "a benchmark measured on a cut with several numbers of shots")
            ]
        tests = adjusted([change for _, change in changes])
        changed = [change for change in tests if change.significant]
        verdict = Verdict.INCONCLUSIVE
        if changed:
            verdict = Verdict.SUPPORTED
        elif all(_is_small(evidence, cut, change) for cut, change in changes):
            verdict = Verdict.CONTRADICTED
        counts = f"{len(changed)} of {len(tests)} changed significantly, {_rose(changed)} of them upwards"
        dense_pairs = [(model, name) for model in evidence.models for name in benchmarks]
        dense = [change for pair in dense_pairs if (change := _change(evidence, *pair)) is not None]
        return [ClaimPart(part, verdict, f"{counts}; {most_significant(tests).words()}", rows([*tests, *dense]))]


def _change(evidence: Evidence, of: MeasuredCut | str, benchmark: str) -> Effect | None:
    """The result with the most shots minus the result with the fewest."""
    by_shots = {shots: measured for shots, measured in evidence.by_shots(of, benchmark).items() if shots is not None}
    if len(by_shots) < 2:
        return None
    few, many = min(by_shots), max(by_shots)
    comparison = compared(benchmark, by_shots[few], by_shots[many])
    if comparison is None:
        return None
    keys = {"model": of, "strategy": "dense"} if isinstance(of, str) else keys_of(of)
    return trial_of(
        {**keys, "benchmark": benchmark, f"{few}-shot": comparison.dense, f"{many}-shot": comparison.pruned}, comparison
    )


def _is_small(evidence: Evidence, cut: MeasuredCut, trial: Effect) -> bool:
    dense = evidence.figure(cut.model, str(trial.keys["benchmark"]))
    return dense is not None and within(trial, HARDLY * dense.value) is Verdict.SUPPORTED


def _rose(trials: Sequence[Effect]) -> int:
    return sum(change.effect > 0 for change in trials)
