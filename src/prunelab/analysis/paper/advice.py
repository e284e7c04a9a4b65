"""The paper's advice for a requirement, without measurements."""

from __future__ import annotations

from dataclasses import dataclass

from prunelab.analysis.paper import paper_rows

SOURCE = "the paper's rules, derived from other models; nothing was measured here"
REASONS = {
    "depth": "the paper advises depth for reasoning at 10 to 20 %, and for speed",
    "width": "the paper advises width to keep language modelling",
}


@dataclass(frozen=True)
class PaperAdvice:
    """A strategy and a ratio, from the paper's section 4.8 and Table 2.

    Attributes:
        strategy: `depth` or `width`.
        method: the paper's method of that strategy.
        ratio: share of weights to remove.
        why: the rule that leads to this advice.
        caution: the paper's warnings; empty if there are none.
    """

    strategy: str
    method: str
    ratio: float
    why: str
    caution: str


def paper_advice(keep: float | None = None, speedup: float | None = None) -> PaperAdvice:
    """Depth at the smallest ratio that reaches the speed on both models of Table 2; without a speed, depth at 10 %, or
    at 20 % if less than 90 % of the quality is required.

    The paper has no rule that maps a share of quality to a ratio; this step is prunelab's, as `why` states.

    Args:
        keep: required share of the dense model's quality.
        speedup: required multiple of the dense model's speed.
    """
    if speedup is not None and speedup > 1:
        ratio, reached = _fast_enough(speedup)
        speeds = ", ".join(f"{model} {speed:.2f}x" for model, speed in reached.items())
        why = f"{REASONS['depth']}; its Table 2 lists depth at {ratio:.0%} with {speeds}"
        caution = (
            "" if min(reached.values()) >= speedup else f"no ratio of its Table 2 reaches {speedup:g}x on both models"
        )
    else:
        ratio = 0.1 if keep is None or keep >= 0.9 else 0.2
        why = f"{REASONS['depth']}; the choice of ratio is prunelab's, since the paper has no rule for it"
        caution = "where language modelling matters most, " + REASONS["width"]
    if ratio > 0.2:
        caution = "; ".join(filter(None, [caution, "the paper advises depth up to 20 % only"]))
    return PaperAdvice("depth", "shortgpt", ratio, why, caution)


def _fast_enough(speedup: float) -> tuple[float, dict[str, float]]:
    """The smallest ratio at which depth reaches a speed on all models of Table 2, else the largest, with the speeds."""
    rows = paper_rows("throughput")
    dense = {row.model: row.value for row in rows if row.strategy == "baseline"}
    speeds: dict[float, dict[str, float]] = {}
    for row in rows:
        if row.strategy == "depth":
            speeds.setdefault(row.ratio, {})[row.model] = row.value / dense[row.model]
    enough = [ratio for ratio in sorted(speeds) if min(speeds[ratio].values()) >= speedup]
    ratio = enough[0] if enough else max(speeds)
    return ratio, speeds[ratio]
