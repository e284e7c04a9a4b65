"""The recommended cut, by the rules of `prunelab recommend`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from prunelab.analysis.recommend import KEEP, Candidate, Recommendation
from prunelab.reports.columns import Column, number
from prunelab.reports.elements import Code, Listing, Part, Prose, Row, Section, TableCell, TableData
from prunelab.reports.summary import cut_words
from prunelab.studies.store import slug

if TYPE_CHECKING:
    from prunelab.reports.grid import Study
    from prunelab.studies.comparison import Difference


def section(study: Study) -> Section | None:
    """For each model, the recommendation for the default requirement."""
    parts: list[Part] = []
    for model in study.grid.models:
        if model in study.recommendations:
            parts += _of_model(study.recommendations[model], model)
        elif model in study.unadvised:
            parts.append(Listing(f"{model}: no recommendation", (study.unadvised[model],), model))
    if not parts:
        return None
    lead = f"Default requirement: the smallest model that retains {KEEP:.0%} of the quality."
    command = f"prunelab recommend {shlex.quote(str(study.run.folder))} --keep 90% --speedup 1.2 --memory 12GB"
    return Section(
        "recommendation",
        "Recommendation",
        lead,
        (*parts, Prose("For other requirements:"), Code(command)),
        "Recommendation",
    )


def _of_model(recommendation: Recommendation, model: str) -> list[Part]:
    choice = recommendation.choice
    lines = [f"{cut_words(choice)}; it removes {choice.cut.achieved_ratio:.1%} of the blocks' weights."]
    lines.append(f"Reason: {recommendation.why}.")
    lines += [f"Selected measurements: {'; '.join(recommendation.taken)}."] if recommendation.taken else []
    lines += [f"Undecided: {item.sentence()}." for item in choice.untold]
    if not (choice.fell or choice.untold):
        lines.append("Cost: no significant loss on any selected benchmark.")
    lines += [f"Excluded: {'; '.join(recommendation.left_out)}."] if recommendation.left_out else []
    lines += [f"Not measured: {'; '.join(recommendation.not_measured)}."] if recommendation.not_measured else []
    lines += (
        [f"Duplicate cuts, counted once: {'; '.join(recommendation.duplicates)}."] if recommendation.duplicates else []
    )
    lines += [
        f"Alternative: {item.cut.method} at {item.cut.ratio:.0%}: {why}." for item, why in recommendation.runners_up
    ]
    cut = f"{choice.cut.method} at {choice.cut.ratio:.0%}"
    title = f"{model}: {cut}" if choice.feasible else f"{model}: no cut meets the requirement; {cut} is closest"
    costs = [_costs(recommendation, model)] if choice.fell else []
    return [
        Listing(title, tuple(lines), model),
        *costs,
        Code(recommendation.command, model),
        _frontier(recommendation, model),
    ]


def _costs(recommendation: Recommendation, model: str) -> TableData:
    """The significant losses of the recommended cut."""
    cut = f"{recommendation.choice.cut.method} {recommendation.choice.cut.ratio:.0%}"
    rows = tuple(Row(_cost(difference), model) for difference in recommendation.choice.fell)
    columns = ("benchmark", "dense", cut, "change", "95 % interval", "p after Holm")
    return TableData(f"costs_{slug(model)}", f"{model}: significant losses of {cut}", columns, rows)


def _cost(difference: Difference) -> tuple[TableCell, ...]:
    column, c = Column.of(difference.measurement), difference.comparison
    p = c.p if c.p_adjusted is None else c.p_adjusted
    return (
        TableCell(column.title),
        TableCell(column.text(c.dense), c.dense),
        TableCell(column.text(c.pruned), c.pruned, mark="worse"),
        TableCell(f"{number(c.difference, 3)}", c.difference),
        TableCell(f"{number(c.interval[0], 3)} to {number(c.interval[1], 3)}"),
        TableCell("< 0.001" if p < 0.001 else f"{p:.3f}", p),
    )


def _frontier(recommendation: Recommendation, model: str) -> TableData:
    shown = [
        recommendation.choice,
        *(candidate for candidate in recommendation.frontier if candidate is not recommendation.choice),
    ]
    rows = tuple(
        Row(_cells(candidate, candidate is recommendation.choice), model, strategy=candidate.cut.strategy)
        for candidate in shown
    )
    columns = ("cut", "removes", "quality kept", "speed", "memory, GB", "chosen")
    caption = (
        f"{model}: Pareto-optimal cuts that meet the requirement, and the recommended one ({recommendation.memory_is})"
    )
    return TableData(f"recommendation_{slug(model)}", caption, columns, rows, folded=True)


def _cells(candidate: Candidate, chosen: bool) -> tuple[TableCell, ...]:
    return (
        TableCell(f"{candidate.cut.method} {candidate.cut.ratio:.0%}"),
        TableCell(f"{candidate.cut.achieved_ratio:.1%}", candidate.cut.achieved_ratio),
        TableCell("–") if candidate.quality is None else TableCell(f"{candidate.quality:.1%}", candidate.quality),
        TableCell("–") if candidate.speedup is None else TableCell(f"{candidate.speedup:.2f}x", candidate.speedup),
        TableCell("–")
        if candidate.memory is None
        else TableCell(number(candidate.memory / 1e9, 3), candidate.memory / 1e9),
        TableCell("yes" if chosen else "no"),
    )
