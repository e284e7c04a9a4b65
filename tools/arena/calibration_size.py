"""How much calibration text a cut wants: its losses by the number of samples, from a run for each number."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.errors import InvalidRequest
from prunelab.studies.run import Run
from tools.arena.standings import Lost, Standing, spread, standings

MEASURES: dict[str, tuple[Lost, int]] = {
    "ln perplexity increase": (lambda one: one.ln_perplexity, 4),
    "accuracy loss, points": (lambda one: one.accuracy, 2),
}
"""How each is read, and to how many digits it is shown."""


def calibration_size(runs: Sequence[Run]) -> list[str]:
    """The section's Markdown: a table a model, ratio and measure, a row a method, a column a number of samples.

    What all runs have is compared, so that a larger run, as the arena's own, can give one of the columns; of two runs
    with the same cut, the one with more draws counts.

    Raises:
        InvalidRequest: samples differ in length, or the runs have no cut in common.
    """
    found: dict[int, dict[tuple[str, float, str], Standing]] = {}
    for run in sorted(runs, key=lambda run: run.config.calibration.samples):
        own = found.setdefault(run.config.calibration.samples, {})
        for one in standings(run.measurements):
            before = own.get((one.model, one.ratio, one.method))
            if before is None or len(one.ln_perplexity) > len(before.ln_perplexity):
                own[one.model, one.ratio, one.method] = one
    lengths = {run.config.calibration.sequence_length for run in runs}
    common = [cut for cut in next(iter(found.values())) if all(cut in own for own in found.values())]
    if len(lengths) > 1 or not common:
        raise InvalidRequest(
            f"{', '.join(str(run.folder) for run in runs)} cannot be compared by the number of samples: give runs of "
            "the same models, methods and ratios, whose samples have the same length"
        )
    lines = [
        "## How much calibration text",
        "",
        f"Losses by the number of calibration samples of {lengths.pop()} tokens. Values without ± are from one draw.",
    ]
    for model, ratio in dict.fromkeys((model, ratio) for model, ratio, _ in common):
        cuts = [cut for cut in common if cut[:2] == (model, ratio)]
        for measure, (lost, digits) in MEASURES.items():
            rows = [[f"`{cut[2]}`", *(spread(lost(own[cut]), digits) for own in found.values())] for cut in cuts]
            head = [f"{model} at {ratio:.0%}, {measure}", *map(str, found)]
            if any(rows[0][1:]):
                lines += ["", *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))]
    return lines
