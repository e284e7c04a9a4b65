"""What the paper itself advises, for a need in words, where nothing was measured."""

from __future__ import annotations

from dataclasses import dataclass

from prunelab.analysis.paper import paper_rows

SOURCE = "the paper's rules alone, for models that are not yours; nothing was measured here"
REASONS = {
    "depth": "the paper advises depth for reasoning at 10 to 20 %, and for speed",
    "width": "the paper advises width to keep language modelling",
}


@dataclass(frozen=True)
class PaperAdvice:
    """A strategy and a ratio from the paper's section 4.8 and Table 2.

    Attributes:
        strategy: `depth` or `width`.
        method: the method of that strategy that the paper uses.
        ratio: share to remove.
        why: which rule gives them.
        caution: what the paper warns of; empty where it does not.
    """

    strategy: str
    method: str
    ratio: float
    why: str
    caution: str


def paper_advice(keep: float | None = None, speedup: float | None = None) -> PaperAdvice:
    """Depth at the smallest ratio that reached the speed in Table 2 on both of its models; without a speed, depth at
    10 %, or at 20 % where less than nine tenths are to be kept.

    The paper has no rule from a share of quality to a ratio; that step is ours, and the reason says so.

    Args:
        keep: share of the dense model's quality.
        speedup: multiple of the dense model's speed.
    """
    if speedup is not None and speedup > 1:
        ratio, reached = _fast_enough(speedup)
        speeds = ", ".join(f"{model} {speed:.2f}x" for model, speed in reached.items())
        why = f"{REASONS['depth']}; its Table 2 has depth at {ratio:.0%} at {speeds}"
        caution = (
            "" if min(reached.values()) >= speedup else f"no ratio of its Table 2 reaches {speedup:g}x on both models"
        )
    else:
        ratio = 0.1 if keep is None or keep >= 0.9 else 0.2
        why = f"{REASONS['depth']}; which of the two ratios keeps how much is our reading, the paper has no such rule"
        caution = "where language modelling matters most, " + REASONS["width"]
    if ratio > 0.2:
        caution = "; ".join(filter(None, [caution, "the paper advises depth up to 20 % only"]))
    return PaperAdvice("depth", "shortgpt", ratio, why, caution)


def _fast_enough(speedup: float) -> tuple[float, dict[str, float]]:
    """The smallest ratio at which all models of Table 2 reach a speed under depth, or the largest, and their speeds."""
    rows = paper_rows("throughput")
    dense = {row.model: row.value for row in rows if row.strategy == "baseline"}
    speeds: dict[float, dict[str, float]] = {}
    for row in rows:
        if row.strategy == "depth":
            speeds.setdefault(row.ratio, {})[row.model] = row.value / dense[row.model]
    enough = [ratio for ratio in sorted(speeds) if min(speeds[ratio].values()) >= speedup]
    ratio = enough[0] if enough else max(speeds)
    return ratio, speeds[ratio]
