"""The cuts of a run, measured by a need: quality kept, speed, memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prunelab.claims.evidence import Cut, Evidence, higher_is_better
from prunelab.comparison import Difference
from prunelab.recommend.need import NO_QUALITY, THROUGHPUT, Need


@dataclass(frozen=True)
class Candidate:
    """One cut of the run.

    Attributes:
        cut: model, method and ratio.
        retained: each benchmark's share of the dense model's figure above chance that is kept; for a perplexity dense
            over pruned, which is the exponential of minus the difference of their logarithms.
        quality: their weighted mean; None where a benchmark is missing.
        speedup: times the dense model's generation speed.
        memory: bytes, see `memory_of`.
        fell: benchmarks that are significantly worse than the dense model's.
        misses: what of the need is not met, in words, and the share of what is wanted by which it is missed.
    """

    cut: Cut
    retained: Mapping[str, float]
    quality: float | None
    speedup: float | None
    memory: float | None
    fell: tuple[Difference, ...] = ()
    misses: tuple[tuple[str, float], ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether the need is met."""
        return not self.misses


def candidate(evidence: Evidence, cut: Cut, need: Need) -> Candidate:
    """A cut, measured by a need whose benchmarks are named."""
    shares = {name: retained_share(evidence, cut, name) for name in need.benchmarks}
    retained = {name: share for name, share in shares.items() if share is not None}
    quality = None
    if len(retained) == len(shares):
        quality = math.fsum(need.share(name) * kept for name, kept in retained.items())
    dense, pruned = (evidence.figure(of, THROUGHPUT) for of in (cut.model, cut))
    speedup = pruned.value / dense.value if dense is not None and pruned is not None else None
    memory = memory_of(evidence, cut.model, cut)[0]
    found = (evidence.difference(cut, name) for name in need.benchmarks)
    fell = tuple(one for one in found if one is not None and _is_worse(one))
    return Candidate(cut, retained, quality, speedup, memory, fell, tuple(_misses(need, quality, speedup, memory)))


def retained_share(evidence: Evidence, cut: Cut, benchmark: str) -> float | None:
    """What a cut keeps of the dense model's figure, see `Candidate.retained`; below chance nothing is kept."""
    dense, pruned = (evidence.figure(of, benchmark) for of in (cut.model, cut))
    if dense is None or pruned is None:
        return None
    if not higher_is_better(benchmark):
        return dense.value / pruned.value
    chance = evidence.chance(cut.model, benchmark)
    return max(0.0, (pruned.value - chance) / (dense.value - chance))


def memory_of(evidence: Evidence, model: str, cut: Cut | None = None) -> tuple[float | None, str]:
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


def missing(evidence: Evidence, need: Need, cuts: Sequence[Cut]) -> list[str]:
    """What the run does not say: benchmarks of the paper's suite, cells that failed, and what is never measured."""
    from prunelab.benchmarks.suites import suites

    there = {m.benchmark for m in evidence.run.measurements if m.model == need.model}
    found = [name for name in suites["paper"].benchmarks if name not in there]
    for cut in cuts:
        gone = [name for name in need.benchmarks if evidence.measured(cut, name) is None]
        found += [f"{name} of {cut.method} {cut.ratio:.0%}" for name in gone]
    untested = [name for name in need.benchmarks if all(evidence.difference(cut, name) is None for cut in cuts)]
    return found + [f"whether {name} changed significantly" for name in untested if name not in NO_QUALITY]


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
