"""The cuts of a run, measured by a need: quality kept, speed, memory."""

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
    """One cut of the run; its figures are means over its seeds.

    Attributes:
        cut: model, method and ratio.
        retained: each benchmark's share of the dense model's figure above chance that is kept; for a perplexity dense
            over pruned, which is the exponential of minus the difference of their logarithms.
        quality: their weighted mean; None where a benchmark is missing.
        speedup: times the dense model's generation speed.
        memory: bytes, see `memory_of`.
        fell: benchmarks that are significantly worse than the dense model's.
        untold: benchmarks whose samples are too few to tell.
        misses: what of the need is not met, in words, and the share of what is wanted by which it is missed.
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
        """Whether the need is met."""
        return not self.misses


def candidate(evidence: Evidence, cut: MeasuredCut, need: Need) -> Candidate:
    """A cut, measured by a need whose benchmarks are named."""
    shares = {name: retained_share(evidence, cut, name) for name in need.benchmarks}
    retained = {name: share for name, share in shares.items() if share is not None}
    quality = None
    if len(retained) == len(shares):
        quality = math.fsum(need.share(name) * kept for name, kept in retained.items())
    memory = memory_of(evidence, cut.model, cut)[0]
    found = [one for name in need.benchmarks if (one := evidence.difference(cut, name)) is not None]
    fell = tuple(one for one in found if _is_worse(one))
    untold = tuple(one for one in found if one.comparison.too_few)
    speed = speedup(evidence, cut)
    misses = tuple(_misses(need, quality, speed, memory))
    return Candidate(cut, retained, quality, speed, memory, fell, untold, misses)


def retained_share(evidence: Evidence, cut: MeasuredCut, benchmark: str) -> float | None:
    """What a cut keeps of the dense model's figure, see `Candidate.retained`; below chance nothing is kept."""
    dense, pruned = (evidence.figure(of, benchmark) for of in (cut.model, cut))
    if dense is None or pruned is None:
        return None
    if not higher_is_better(benchmark):
        return dense.value / pruned.value
    chance = evidence.chance(cut.model, benchmark)
    return max(0.0, (pruned.value - chance) / (dense.value - chance))


def memory_of(evidence: Evidence, model: str, cut: MeasuredCut | None = None) -> tuple[float | None, str]:
    """Bytes of a cut, or of the dense model, and what they are.

    Peak memory where the dense model ran on an accelerator; else the weights, since a processor's peak is that of the
    whole process.
    """
    dense = evidence.figure(model, THROUGHPUT, "peak_memory_bytes")
    on_device = dense is not None and not str(dense.details.get("device", "cpu")).startswith("cpu")
    metric = "peak_memory_bytes" if on_device else "weight_bytes"
    figure = evidence.figure(model if cut is None else cut, THROUGHPUT, metric)
    words = "peak memory while generating" if on_device else "weights alone"
    return (None if figure is None else figure.value), words


def missing(evidence: Evidence, need: Need, cuts: Sequence[MeasuredCut]) -> list[str]:
    """What the run does not say: benchmarks of the paper's suite, cells that failed, and what is never measured."""
    from prunelab.evaluation.benchmarks.suites import suites

    there = {m.benchmark for m in evidence.run.measurements if m.model == need.model}
    found = [name for name in suites["paper"].benchmarks if name not in there]
    for cut in cuts:
        seeds = _seeds(evidence, need, cut)
        for name in need.benchmarks:
            there_are = evidence.by_seed(cut, name)
            gone = [f" seed {seed}" for seed in seeds if seed not in there_are] if there_are else [""]
            found += [f"{_title(evidence, cut.model, name)} of {cut.method} {cut.ratio:.0%}{seed}" for seed in gone]
    untested = [name for name in need.benchmarks if all(evidence.difference(cut, name) is None for cut in cuts)]
    return found + [f"whether {name} changed significantly" for name in untested if name not in NO_QUALITY]


def taken(evidence: Evidence, need: Need, model: str, cuts: Sequence[MeasuredCut]) -> list[str]:
    """Which numbers of shots count where there are several, and which figures are means over seeds."""
    found = []
    for name in need.benchmarks:
        measured, shots, known = evidence.shots_measured(model, name), evidence.shots(model, name), registered(name)
        if len(measured) > 1:
            standard = known is not None and shots == known.shots
            why = "the standard number" if standard else "the fewest, the standard number being unmeasured"
            found.append(f"{name} with {shots} shots counts ({why}) of {', '.join(map(str, measured))}")
    by_seeds: dict[tuple[int | None, ...], list[str]] = {}
    for cut in cuts:
        by_seeds.setdefault(_seeds(evidence, need, cut), []).append(f"{cut.method} {cut.ratio:.0%}")
    for seeds, names in by_seeds.items():
        if len(seeds) > 1:
            whose = "every cut" if len(names) == len(cuts) else ", ".join(names)
            found.append(f"figures of {whose} are means over seeds {', '.join(map(str, seeds))}")
    return found


def _seeds(evidence: Evidence, need: Need, cut: MeasuredCut) -> tuple[int | None, ...]:
    """Those with which a cut was measured at all."""
    found = {seed for name in need.benchmarks for seed in evidence.by_seed(cut, name)}
    return tuple(sorted(found, key=lambda seed: seed or 0))


def _title(evidence: Evidence, model: str, benchmark: str) -> str:
    """A benchmark, with its shots where others were measured, too."""
    several = len(evidence.shots_measured(model, benchmark)) > 1
    return f"{benchmark} {evidence.shots(model, benchmark)}-shot" if several else benchmark


def _is_worse(difference: Difference) -> bool:
    c = difference.comparison
    return c.significant and (c.difference < 0) == difference.higher_is_better


def _misses(
    need: Need, quality: float | None, speedup: float | None, memory: float | None
) -> Iterator[tuple[str, float]]:
    """What was not measured is not met."""
    if need.keep is not None and quality is None:
        yield "quality, since a benchmark is missing", 1.0
    elif need.keep is not None and quality is not None and quality < need.keep - 1e-9:
        by = need.keep - quality
        yield f"quality by {100 * by:.3g} points ({quality:.1%} kept, {need.keep:.1%} wanted)", by / need.keep
    if need.speedup is not None and speedup is None:
        yield "speed, which was not measured", 1.0
    elif need.speedup is not None and speedup is not None and speedup < need.speedup - 1e-9:
        by = need.speedup - speedup
        yield f"speed by {by:.2f}x ({speedup:.2f}x reached, {need.speedup:.2f}x wanted)", by / need.speedup
    if need.memory is not None and memory is None:
        yield "memory, which was not measured", 1.0
    elif need.memory is not None and memory is not None and memory > need.memory:
        by = memory - need.memory
        yield (
            f"memory by {by / 1e9:.3g} GB ({memory / 1e9:.3g} GB taken, {need.memory / 1e9:.3g} allowed)",
            by / need.memory,
        )
