"""C8: bias hardly changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from prunelab.analysis.claims import register
from prunelab.analysis.claims.base import Claim, ClaimPart, Verdict
from prunelab.analysis.claims.evidence import Evidence, MeasuredCut, keys_of
from prunelab.analysis.claims.rules import every, most_significant, rows, within
from prunelab.analysis.claims.trials import Effect, adjusted, trial_of
from prunelab.evaluation.metrics.stereoset import (
    DOMAINS,
    OVERALL,
    POOLED,
    SENTENCES,
    compared,
    icat_statistic,
    terms_of,
)
from prunelab.stats.paired_tests import mean, paired_bootstrap

if TYPE_CHECKING:
    from prunelab.io.lazy import pd

STEREOSET = "stereoset"
COLUMNS = {"icat": ["lms", "ss"], "lms": ["lms"], "ss": ["ss"]}
"""Columns of a target term's table, by metric."""
MARGIN = 5.0
"""Change of ICAT or LMS, in points, that still counts as "about the same"."""
Terms: TypeAlias = "Mapping[tuple[str, str], pd.DataFrame]"
"""Per-term values by (domain, metric)."""
Both: TypeAlias = tuple[Terms, Terms]
"""The dense model's terms and the cut's."""


@register
class Stereotypes(Claim):
    """ICAT, with LMS to distinguish an unchanged ICAT from a collapse."""

    name: ClassVar[str] = "C8"
    statement: ClassVar[str] = "Overall ICAT stays about the same, and single domains, such as race, can improve."
    test: ClassVar[str] = (
        f"In every depth and width cut, the 95 % interval of ICAT's change lies within {MARGIN:g} points; inconclusive "
        "if LMS falls by more, since a collapse of LMS to chance moves ICAT to 50. In at least one domain and cut "
        "without such a fall, ICAT rises significantly (paired over terms, Holm); contradicted if all domains fall "
        "significantly."
    )

    def parts(self, evidence: Evidence) -> Sequence[ClaimPart]:
        """Parts: overall ICAT, and single domains."""
        cuts = [cut for strategy in ("depth", "width") for cut in evidence.cuts(strategy)]
        dense = {model: _terms(evidence, model) for model in evidence.models}
        tables: dict[MeasuredCut, Both] = {}
        for cut in cuts:
            before, after = dense[cut.model], _terms(evidence, cut)
            if before is not None and after is not None:
                tables[cut] = (before, after)
        overall = [change for cut, terms in tables.items() if (change := _overall(terms, cut)) is not None]
        needs = f"{STEREOSET} with its sample records on a depth or width cut"
        return [every("overall ICAT stays", overall, needs), _domains(tables, needs)]


def _terms(evidence: Evidence, of: str | MeasuredCut) -> Terms | None:
    """The target terms of a dense model or a cut."""
    measured = evidence.measured(of, STEREOSET)
    if measured is None or measured.samples is None or not set(SENTENCES) <= set(measured.samples):
        return None
    examples = compared(measured.samples)
    terms_by_domain = {domain: terms_of(examples, POOLED, domain) for domain in (*DOMAINS, OVERALL)}
    return {
        (domain, metric): terms[columns]
        for domain, terms in terms_by_domain.items()
        for metric, columns in COLUMNS.items()
    }


def _change(terms: Both, cut: MeasuredCut, domain: str, metric: str) -> Effect | None:
    """A domain's ICAT or LMS, resampled by target term."""
    before, after = (values[domain, metric] for values in terms)
    if not len(before) or not before.index.equals(after.index):
        return None
    comparison = paired_bootstrap(before, after, icat_statistic if metric == "icat" else mean, seed=0)
    name = metric if domain == OVERALL else f"{metric} {domain}"
    return trial_of(
        {**keys_of(cut), "benchmark": name, "dense": comparison.dense, "pruned": comparison.pruned}, comparison
    )


def _collapsed(lms: Effect | None) -> bool:
    """Whether LMS fell significantly by more than the margin."""
    return lms is not None and lms.significant and lms.effect < -MARGIN


def _overall(terms: Both, cut: MeasuredCut) -> tuple[Effect, Verdict] | None:
    icat, lms, ss = (_change(terms, cut, OVERALL, metric) for metric in ("icat", "lms", "ss"))
    if icat is None or lms is None or ss is None:
        return None
    verdict = within(icat, MARGIN)
    if verdict is Verdict.SUPPORTED and _collapsed(lms):
        verdict = Verdict.INCONCLUSIVE
    named = (("LMS", lms), ("SS", ss))
    components = {f"{when} {name}": effect.keys[when] for name, effect in named for when in ("dense", "pruned")}
    return Effect({**icat.keys, **components}, icat.effect, icat.low, icat.high, icat.p), verdict


def _domains(tables: Mapping[MeasuredCut, Both], needs: str) -> ClaimPart:
    name = "single domains can improve"
    changes = []
    for cut, both in tables.items():
        for domain in DOMAINS:
            icat, lms = (_change(both, cut, domain, metric) for metric in ("icat", "lms"))
            changes += [] if icat is None else [(icat, _collapsed(lms))]
    if not changes:
        return ClaimPart(name, Verdict.NOT_MEASURED, needs)
    tests = adjusted([icat for icat, _ in changes])
    better = [
        t
        for t, (_, has_collapsed) in zip(tests, changes, strict=True)
        if t.significant and t.effect > 0 and not has_collapsed
    ]
    worse = [t for t in tests if t.significant and t.effect < 0]
    verdict = Verdict.INCONCLUSIVE
    if better:
        verdict = Verdict.SUPPORTED
    elif len(worse) == len(tests):
        verdict = Verdict.CONTRADICTED
    counts = f"{len(better)} of {len(tests)} domains rose significantly, {len(worse)} fell"
    return ClaimPart(name, verdict, f"{counts}; {most_significant(better or tests).words()}", rows(tests))
