"""A run's cuts, assessed against a requirement: retention, speed and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import Evidence, MeasuredCut, higher_is_better, registered
from prunelab.analysis.claims.speed import speedup
from prunelab.analysis.recommend.need import NO_QUALITY, THROUGHPUT, Need

if TYPE_CHECKING:
    from prunelab.studies.comparison import Difference


@dataclass(frozen=True)
class Candidate:
    """One cut of the run; its results are means over its seeds.

    Attributes:
        cut: model, method and ratio.
        retained: each benchmark's retained share of the dense model's margin over chance; for a perplexity, dense
            divided by pruned.
        quality: the weighted mean of `retained`; None if a benchmark is missing.
        speedup: generation speed relative to the dense model.
        memory: bytes, see `memory_of`.
        fell: benchmarks with a significant loss.
        untold: benchmarks with too few samples for a significant result.
        misses: unmet requirements in words, each with the relative amount by which it is missed.
    """

    cut: MeasuredCut
    retained: Mapping[str, float]
    quality: float | None
    speedup: float | None
    memory: float | None
    fell: tuple[Difference, ...] = ()
    untold: tuple[Difference, ...] = ()
    misses: tuple[tuple[str, float], ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether the requirement is met."""
        return not self.misses


def candidate(evidence: Evidence, cut: MeasuredCut, need: Need) -> Candidate:
    """Assess a cut against a requirement whose benchmarks are resolved."""
    shares = {name: retained_share(evidence, cut, name) for name in need.benchmarks}
    retained = {name: share for name, share in shares.items() if share is not None}
    quality = None
    if len(retained) == len(shares):
        quality = math.fsum(need.share(name) * retained_of_one for name, retained_of_one in retained.items())
    memory = memory_of(evidence, cut.model, cut)[0]
    differences = [difference for name in need.benchmarks if (difference := evidence.difference(cut, name)) is not None]
    fell = tuple(difference for difference in differences if _is_worse(difference))
    untold = tuple(difference for difference in differences if difference.comparison.too_few)
    speed = speedup(evidence, cut)
    misses = tuple(_misses(need, quality, speed, memory))
    return Candidate(cut, retained, quality, speed, memory, fell, untold, misses)


def retained_share(evidence: Evidence, cut: MeasuredCut, benchmark: str) -> float | None:
    """A cut's retention on a benchmark, see `Candidate.retained`; 0 below chance."""
    dense, pruned = (evidence.figure(of, benchmark) for of in (cut.model, cut))
    if dense is None or pruned is None:
        return None
    if not higher_is_better(benchmark):
        return dense.value / pruned.value
    chance = evidence.chance(cut.model, benchmark)
    return max(0.0, (pruned.value - chance) / (dense.value - chance))


def memory_of(evidence: Evidence, model: str, cut: MeasuredCut | None = None) -> tuple[float | None, str]:
    """Memory of a cut or of the dense model in bytes, and what it measures.

    Peak memory if the dense model ran on an accelerator; else the size of the weights, since on a CPU the peak is that
    of the entire process.
    """
    dense = evidence.figure(model, THROUGHPUT, "peak_memory_bytes")
    on_device = dense is not None and not str(dense.details.get("device", "cpu")).startswith("cpu")
    metric = "peak_memory_bytes" if on_device else "weight_bytes"
    figure = evidence.figure(model if cut is None else cut, THROUGHPUT, metric)
    words = "peak memory while generating" if on_device else "weights only"
    return (None if figure is None else figure.value), words


def missing(evidence: Evidence, need: Need, cuts: Sequence[MeasuredCut]) -> list[str]:
    """What the run lacks: benchmarks of the paper's suite, failed cells, and missing significance tests."""
    from prunelab.evaluation.benchmarks.suites import suites

    measured = {m.benchmark for m in evidence.run.measurements if m.model == need.model}
    lacking = [name for name in suites["paper"].benchmarks if name not in measured]
    for cut in cuts:
        seeds = _seeds(evidence, need, cut)
        for name in need.benchmarks:
            by_seed = evidence.by_seed(cut, name)
            missing_seeds = [f" seed {seed}" for seed in seeds if seed not in by_seed] if by_seed else [""]
            lacking += [
                f"{_title(evidence, cut.model, name)} of {cut.method} {cut.ratio:.0%}{seed}" for seed in missing_seeds
            ]
    untested = [name for name in need.benchmarks if all(evidence.difference(cut, name) is None for cut in cuts)]
    return lacking + [f"whether {name} changed significantly" for name in untested if name not in NO_QUALITY]


def taken(evidence: Evidence, need: Need, model: str, cuts: Sequence[MeasuredCut]) -> list[str]:
    """Which number of shots counts if there are several, and which results are means over seeds."""
    notes = []
    for name in need.benchmarks:
        measured, shots, known = evidence.shots_measured(model, name), evidence.shots(model, name), registered(name)
        if len(measured) > 1:
            standard = known is not None and shots == known.shots
            why = "the standard number" if standard else "the smallest, since the standard number was not measured"
            notes.append(f"{name} with {shots} shots counts ({why}) of {', '.join(map(str, measured))}")
    by_seeds: dict[tuple[int | None, ...], list[str]] = {}
    for cut in cuts:
        by_seeds.setdefault(_seeds(evidence, need, cut), []).append(f"{cut.method} {cut.ratio:.0%}")
    for seeds, names in by_seeds.items():
        if len(seeds) > 1:
            owner = "every cut" if len(names) == len(cuts) else ", ".join(names)
            notes.append(f"results of {owner} are means over seeds {', '.join(map(str, seeds))}")
    return notes


def _seeds(evidence: Evidence, need: Need, cut: MeasuredCut) -> tuple[int | None, ...]:
    """The seeds with which a cut was measured."""
    seeds = {seed for name in need.benchmarks for seed in evidence.by_seed(cut, name)}
    return tuple(sorted(seeds, key=lambda seed: seed or 0))


def _title(evidence: Evidence, model: str, benchmark: str) -> str:
    """A benchmark's name, with its number of shots if several were measured."""
    several = len(evidence.shots_measured(model, benchmark)) > 1
    return f"{benchmark} {evidence.shots(model, benchmark)}-shot" if several else benchmark


def _is_worse(difference: Difference) -> bool:
    c = difference.comparison
    return c.significant and (c.difference < 0) == difference.higher_is_better


def _misses(
    need: Need, quality: float | None, speedup: float | None, memory: float | None
) -> Iterator[tuple[str, float]]:
    """The unmet requirements; a requirement that was not measured is unmet."""
    if need.keep is not None and quality is None:
        yield "quality, since a benchmark is missing", 1.0
    elif need.keep is not None and quality is not None and quality < need.keep - 1e-9:
        by = need.keep - quality
        yield f"quality by {100 * by:.3g} points ({quality:.1%} retained, {need.keep:.1%} required)", by / need.keep
    if need.speedup is not None and speedup is None:
        yield "speed, which was not measured", 1.0
    elif need.speedup is not None and speedup is not None and speedup < need.speedup - 1e-9:
        by = need.speedup - speedup
        yield f"speed by {by:.2f}x ({speedup:.2f}x reached, {need.speedup:.2f}x required)", by / need.speedup
    if need.memory is not None and memory is None:
        yield "memory, which was not measured", 1.0
    elif need.memory is not None and memory is not None and memory > need.memory:
        by = memory - need.memory
        yield (
            f"memory by {by / 1e9:.3g} GB ({memory / 1e9:.3g} GB used, {need.memory / 1e9:.3g} GB allowed)",
            by / need.memory,
        )
