"""Losses of cuts by the number of calibration samples, from one run per number."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.errors import InvalidRequest
from prunelab.studies.run import Run
from tools.arena.standings import Lost, Standing, spread, standings

MEASURES: dict[str, tuple[Lost, int]] = {
    "ln perplexity increase": (lambda one: one.ln_perplexity, 4),
    "accuracy loss, points": (lambda one: one.accuracy, 2),
}
"""Accessor and number of decimals of each measure."""


def calibration_size(runs: Sequence[Run]) -> list[str]:
    """The section's Markdown: one table per model, ratio and measure; methods in rows, sample counts in columns.

    Only cuts that all runs have are compared, so a larger run, such as the arena's, can provide a column. Of two runs
    with the same cut, the one with more draws counts.

    Raises:
        InvalidRequest: the sample lengths differ, or the runs have no cut in common.
    """
    by_samples: dict[int, dict[tuple[str, float, str], Standing]] = {}
    for run in sorted(runs, key=lambda run: run.config.calibration.samples):
        by_cut = by_samples.setdefault(run.config.calibration.samples, {})
        for standing in standings(run.measurements):
            before = by_cut.get((standing.model, standing.ratio, standing.method))
            if before is None or len(standing.ln_perplexity) > len(before.ln_perplexity):
                by_cut[standing.model, standing.ratio, standing.method] = standing
    lengths = {run.config.calibration.sequence_length for run in runs}
    common = [cut for cut in next(iter(by_samples.values())) if all(cut in by_cut for by_cut in by_samples.values())]
    if len(lengths) > 1 or not common:
        raise InvalidRequest(
            f"{', '.join(str(run.folder) for run in runs)} cannot be compared by the number of samples: give runs of "
            "the same models, methods and ratios, whose samples have the same length"
        )
    lines = [
        "## Amount of calibration text",
        "",
        f"Losses by the number of calibration samples of {lengths.pop()} tokens. Values without ± are from one draw.",
    ]
    for model, ratio in dict.fromkeys((model, ratio) for model, ratio, _ in common):
        cuts = [cut for cut in common if cut[:2] == (model, ratio)]
        for measure, (lost, digits) in MEASURES.items():
            rows = [
                [f"`{cut[2]}`", *(spread(lost(by_cut[cut]), digits) for by_cut in by_samples.values())] for cut in cuts
            ]
            head = [f"{model} at {ratio:.0%}, {measure}", *map(str, by_samples)]
            if any(rows[0][1:]):
                lines += ["", *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))]
    return lines
