"""Which strategy and ratio for a stated need: a pure function of a run."""

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
    """What to do.

    Attributes:
        need: as it was understood, with its model and benchmarks.
        choice: the cut to make, or the nearest where none is feasible.
        why: the reason for it.
        frontier: the feasible cuts that no other one beats in quality, speed, memory and size, the best quality first.
        runners_up: other cuts, feasible ones first, each with what tells its quality from the choice's.
        dense_memory: the dense model's.
        memory_is: what the memory figures are.
        taken: which of several shots count, and what is a mean over seeds.
        twins: cuts that are left out, since they are the same model as one that is not.
        left_out: benchmarks that say nothing about quality here, and why.
        not_measured: what the run lacks.
        command: makes the choice; of several seeds the lowest one's.
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
    """The cut of a run that meets a need best.

    Where quality alone is asked for, the cut that removes most and keeps it, and of cuts of one size (two points) the
    one of highest quality; where speed or memory is asked for, the feasible cut of highest quality. Methods that draw
    at random are baselines, and not chosen.

    Raises:
        InvalidRequest: the need names what the run lacks.
    """
    evidence = Evidence(run, [name for name in methods if not methods[name].is_random])
    model, need, left_out = resolved(evidence, need)
    cuts = evidence.cuts(model=model)
    if not cuts:
        raise InvalidRequest(f"the run has no pruned cut of {model} to choose from: give its study methods and ratios")
    duplicates = run.duplicates
    alone = [cut for cut in cuts if not duplicates.has(cut)]
    candidates = [candidate(evidence, cut, need) for cut in alone]
    feasible = [one for one in candidates if one.feasible]
    if feasible:
        choice, why = _chosen(feasible, need)
    else:
        choice = min(candidates, key=lambda one: (sum(by for _, by in one.misses), -_quality(one)))
        why = f"nothing is feasible; this comes nearest, and misses {' and '.join(what for what, _ in choice.misses)}"
    others = sorted(
        (one for one in candidates if one is not choice), key=lambda one: (not one.feasible, -_quality(one))
    )
    memory, memory_is = memory_of(evidence, model)
    return Recommendation(
        need=need,
        choice=choice,
        why=why,
        frontier=tuple(frontier(feasible)),
        runners_up=tuple((one, told_apart(evidence, need, choice, one)) for one in others[:3]),
        dense_memory=memory,
        memory_is=memory_is,
        taken=tuple(taken(evidence, need, model, cuts)),
        duplicates=tuple(duplicates.sentences(model)),
        left_out=tuple(left_out),
        not_measured=tuple(missing(evidence, need, cuts)),
        command=prune_command(run, choice.cut),
    )


def _quality(one: Candidate) -> float:
    return -1.0 if one.quality is None else one.quality


def _chosen(feasible: Sequence[Candidate], need: Need) -> tuple[Candidate, str]:
    if need.speedup is None and need.memory is None:
        most = max(one.cut.achieved_ratio for one in feasible)
        sized = [one for one in feasible if one.cut.achieved_ratio >= most - MATCHED]
        why = f"it removes the most that keeps {need.keep or KEEP:.0%} of the quality"
        if len(sized) > 1:
            why += f", and keeps the most quality of the {len(sized)} such cuts of its size"
        return max(sized, key=_quality), why
    return max(feasible, key=_quality), f"it keeps the most quality of the {len(feasible)} cuts that meet the need"


def frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other one equals or beats in all of quality, speed, memory and size, the best quality
    first."""

    def merits(one: Candidate) -> tuple[float, ...]:
        memory = -one.memory if one.memory is not None else 0.0
        return (_quality(one), one.speedup or 0.0, memory, round(one.cut.achieved_ratio, 2))

    def beaten(one: Candidate) -> bool:
        own = merits(one)
        return any(
            merits(other) != own and all(a >= b for a, b in zip(merits(other), own, strict=True))
            for other in candidates
        )

    return sorted((one for one in candidates if not beaten(one)), key=_quality, reverse=True)


__all__ = ["KEEP", "NO_QUALITY", "Candidate", "Need", "Recommendation", "frontier", "recommend"]
