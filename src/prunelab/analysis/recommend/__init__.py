"""Recommendation of a cut for a stated requirement, as a pure function of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import MATCHED, Evidence
from prunelab.analysis.recommend.candidates import Candidate, candidate, memory_of, missing, taken
from prunelab.analysis.recommend.command import prune_command
from prunelab.analysis.recommend.compare import told_apart
from prunelab.analysis.recommend.need import KEEP, NO_QUALITY, Need, resolved
from prunelab.errors import InvalidRequest
from prunelab.pruning.methods import methods

if TYPE_CHECKING:
    from prunelab.studies.run import Run


@dataclass(frozen=True)
class Recommendation:
    """The recommended cut, with reasons and alternatives.

    Attributes:
        need: the requirement, with its model and benchmarks resolved.
        choice: the recommended cut; the closest one if none is feasible.
        why: the reason for the choice.
        frontier: the Pareto-optimal feasible cuts in quality, speed, memory and size, by descending quality.
        runners_up: alternatives, feasible ones first, each with a comparison of its quality to the choice's.
        dense_memory: memory of the dense model.
        memory_is: what the memory values measure.
        taken: which number of shots counts, and which results are means over seeds.
        duplicates: duplicate cuts, each counted once.
        left_out: benchmarks that do not measure quality here, with the reasons.
        not_measured: measurements that the run lacks.
        command: the command that creates the chosen cut; of several seeds, the lowest.
    """

    need: Need
    choice: Candidate
    why: str
    frontier: tuple[Candidate, ...]
    runners_up: tuple[tuple[Candidate, str], ...]
    dense_memory: float | None
    memory_is: str
    taken: tuple[str, ...]
    duplicates: tuple[str, ...]
    left_out: tuple[str, ...]
    not_measured: tuple[str, ...]
    command: str


def recommend(run: Run, need: Need) -> Recommendation:
    """Select the cut of a run that meets a requirement best.

    If only quality is required, select the largest cut that retains it and, among cuts of the same size (within two
    points), the one of highest quality. If speed or memory is required, select the feasible cut of highest quality.
    Random methods are baselines and are not considered.

    Raises:
        InvalidRequest: the requirement names something that the run lacks.
    """
    evidence = Evidence(run, [name for name in methods if not methods[name].is_random])
    model, need, left_out = resolved(evidence, need)
    cuts = evidence.cuts(model=model)
    if not cuts:
        raise InvalidRequest(f"the run has no pruned cut of {model} to choose from: give its study methods and ratios")
    duplicates = run.duplicates
    alone = [cut for cut in cuts if not duplicates.has(cut)]
    candidates = [candidate(evidence, cut, need) for cut in alone]
    feasible = [item for item in candidates if item.feasible]
    if feasible:
        choice, why = _chosen(feasible, need)
    else:
        choice = min(candidates, key=lambda item: (sum(by for _, by in item.misses), -_quality(item)))
        why = f"no cut is feasible; this is the closest, and misses {' and '.join(what for what, _ in choice.misses)}"
    alternatives = sorted(
        (item for item in candidates if item is not choice), key=lambda item: (not item.feasible, -_quality(item))
    )
    memory, memory_is = memory_of(evidence, model)
    return Recommendation(
        need=need,
        choice=choice,
        why=why,
        frontier=tuple(frontier(feasible)),
        runners_up=tuple((item, told_apart(evidence, need, choice, item)) for item in alternatives[:3]),
        dense_memory=memory,
        memory_is=memory_is,
        taken=tuple(taken(evidence, need, model, cuts)),
        duplicates=tuple(duplicates.sentences(model)),
        left_out=tuple(left_out),
        not_measured=tuple(missing(evidence, need, cuts)),
        command=prune_command(run, choice.cut),
    )


def _quality(candidate: Candidate) -> float:
    return -1.0 if candidate.quality is None else candidate.quality


def _chosen(feasible: Sequence[Candidate], need: Need) -> tuple[Candidate, str]:
    if need.speedup is None and need.memory is None:
        most = max(candidate.cut.achieved_ratio for candidate in feasible)
        sized = [candidate for candidate in feasible if candidate.cut.achieved_ratio >= most - MATCHED]
        why = f"the largest cut that retains {need.keep or KEEP:.0%} of the quality"
        if len(sized) > 1:
            why += f", and the one with the highest quality of {len(sized)} such cuts of this size"
        return max(sized, key=_quality), why
    return max(feasible, key=_quality), f"the highest quality of the cuts that meet the requirement ({len(feasible)})"


def frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The Pareto-optimal candidates in quality, speed, memory and size, by descending quality."""

    def merits(candidate: Candidate) -> tuple[float, ...]:
        memory = -candidate.memory if candidate.memory is not None else 0.0
        return (_quality(candidate), candidate.speedup or 0.0, memory, round(candidate.cut.achieved_ratio, 2))

    def beaten(candidate: Candidate) -> bool:
        candidate_merits = merits(candidate)
        return any(
            merits(rival) != candidate_merits
            and all(a >= b for a, b in zip(merits(rival), candidate_merits, strict=True))
            for rival in candidates
        )

    return sorted((candidate for candidate in candidates if not beaten(candidate)), key=_quality, reverse=True)


__all__ = ["KEEP", "NO_QUALITY", "Candidate", "Need", "Recommendation", "frontier", "recommend"]
