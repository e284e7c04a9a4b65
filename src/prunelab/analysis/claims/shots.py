"""C12: examples in the prompt change a pruned model's answers."""

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
    """The fewest shots against the most, on the same samples."""

    name: ClassVar[str] = "C12"
    statement: ClassVar[str] = "Examples in the prompt change how well a pruned model answers."
    test: ClassVar[str] = (
        "In at least one depth, width or hybrid cut a benchmark's figure differs significantly between the fewest and "
        "the most shots measured (paired on the same samples, Holm); contradicted where every 95 % interval lies "
        f"within {HARDLY:.0%} of the dense figure."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """The pruned models; the dense ones' changes stand beside them in the evidence."""
        benchmarks = dict.fromkeys(m.benchmark for m in evidence.run.measurements if m.shots is not None)
        pairs = [(cut, name) for cut in evidence.cuts() for name in benchmarks]
        found = [(cut, one) for cut, name in pairs if (one := _change(evidence, cut, name)) is not None]
        part = "more shots"
        if not found:
            return [
                ClaimPart(part, Verdict.NOT_MEASURED, "a benchmark measured on a cut with several numbers of shots")
            ]
        tests = adjusted([one for _, one in found])
        changed = [one for one in tests if one.significant]
        verdict = Verdict.INCONCLUSIVE
        if changed:
            verdict = Verdict.SUPPORTED
        elif all(_is_small(evidence, cut, one) for cut, one in found):
            verdict = Verdict.CONTRADICTED
        counts = f"{len(changed)} of {len(tests)} changed significantly, {_rose(changed)} of them upwards"
        dense_pairs = [(model, name) for model in evidence.models for name in benchmarks]
        dense = [one for pair in dense_pairs if (one := _change(evidence, *pair)) is not None]
        return [ClaimPart(part, verdict, f"{counts}; {most_significant(tests).words()}", rows([*tests, *dense]))]


def _change(evidence: Evidence, of: MeasuredCut | str, benchmark: str) -> Effect | None:
    """The figure with the most shots minus the one with the fewest."""
    by_shots = {shots: one for shots, one in evidence.by_shots(of, benchmark).items() if shots is not None}
    if len(by_shots) < 2:
        return None
    few, many = min(by_shots), max(by_shots)
    found = compared(benchmark, by_shots[few], by_shots[many])
    if found is None:
        return None
    keys = {"model": of, "strategy": "dense"} if isinstance(of, str) else keys_of(of)
    return trial_of({**keys, "benchmark": benchmark, f"{few}-shot": found.dense, f"{many}-shot": found.pruned}, found)


def _is_small(evidence: Evidence, cut: MeasuredCut, trial: Effect) -> bool:
    dense = evidence.figure(cut.model, str(trial.keys["benchmark"]))
    return dense is not None and within(trial, HARDLY * dense.value) is Verdict.SUPPORTED


def _rose(trials: Sequence[Effect]) -> int:
    return sum(one.effect > 0 for one in trials)
