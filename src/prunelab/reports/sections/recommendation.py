"""Which cut to take, by the rules of `prunelab recommend`."""

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
    """For each model the default need: the smallest cut that keeps most of the quality."""
    parts: list[Part] = []
    for model in study.grid.models:
        if model in study.recommendations:
            parts += _of_model(study.recommendations[model], model)
        elif model in study.unadvised:
            parts.append(Listing(f"{model}: no recommendation", (study.unadvised[model],), model))
    if not parts:
        return None
    lead = f"For the usual need: the smallest model that keeps {KEEP:.0%} of the quality."
    other = f"prunelab recommend {shlex.quote(str(study.run.folder))} --keep 90% --speedup 1.2 --memory 12GB"
    return Section("recommendation", "What to take", lead, (*parts, Prose("For another need:"), Code(other)), "Advice")


def _of_model(found: Recommendation, model: str) -> list[Part]:
    choice = found.choice
    lines = [f"{cut_words(choice)}; it removes {choice.cut.achieved_ratio:.1%} of the blocks' weights."]
    lines.append(f"Why: {found.why}.")
    lines += [f"Of several: {'; '.join(found.taken)}."] if found.taken else []
    lines += [f"What it costs: {one.sentence()}." for one in choice.untold]
    if not (choice.fell or choice.untold):
        lines.append("What it costs: no chosen benchmark was seen to fall.")
    lines += [f"Left out: {'; '.join(found.left_out)}."] if found.left_out else []
    lines += [f"Not measured: {'; '.join(found.not_measured)}."] if found.not_measured else []
    lines += [f"Once: {'; '.join(found.duplicates)}."] if found.duplicates else []
    lines += [f"Instead, {one.cut.method} at {one.cut.ratio:.0%}: {why}." for one, why in found.runners_up]
    cut = f"{choice.cut.method} at {choice.cut.ratio:.0%}"
    title = f"{model}: {cut}" if choice.feasible else f"{model}: nothing keeps enough; {cut} comes nearest"
    costs = [_costs(found, model)] if choice.fell else []
    return [Listing(title, tuple(lines), model), *costs, Code(found.command, model), _frontier(found, model)]


def _costs(found: Recommendation, model: str) -> TableData:
    """What the choice was seen to lose."""
    cut = f"{found.choice.cut.method} {found.choice.cut.ratio:.0%}"
    rows = tuple(Row(_cost(one), model) for one in found.choice.fell)
    columns = ("benchmark", "dense", cut, "change", "95 % interval", "p after Holm")
    return TableData(f"costs_{slug(model)}", f"{model}: what {cut} costs", columns, rows)


def _cost(one: Difference) -> tuple[TableCell, ...]:
    column, c = Column.of(one.measurement), one.comparison
    p = c.p if c.p_adjusted is None else c.p_adjusted
    return (
        TableCell(column.title),
        TableCell(column.text(c.dense), c.dense),
        TableCell(column.text(c.pruned), c.pruned, mark="worse"),
        TableCell(f"{number(c.difference, 3)}", c.difference),
        TableCell(f"{number(c.interval[0], 3)} to {number(c.interval[1], 3)}"),
        TableCell("< 0.001" if p < 0.001 else f"{p:.3f}", p),
    )


def _frontier(found: Recommendation, model: str) -> TableData:
    shown = [found.choice, *(one for one in found.frontier if one is not found.choice)]
    rows = tuple(Row(_cells(one, one is found.choice), model, strategy=one.cut.strategy) for one in shown)
    columns = ("cut", "removes", "quality kept", "speed", "memory, GB", "chosen")
    caption = f"{model}: the choice, and the other cuts that meet the need and that no cut beats ({found.memory_is})"
    return TableData(f"recommendation_{slug(model)}", caption, columns, rows, folded=True)


def _cells(one: Candidate, chosen: bool) -> tuple[TableCell, ...]:
    return (
        TableCell(f"{one.cut.method} {one.cut.ratio:.0%}"),
        TableCell(f"{one.cut.achieved_ratio:.1%}", one.cut.achieved_ratio),
        TableCell("–") if one.quality is None else TableCell(f"{one.quality:.1%}", one.quality),
        TableCell("–") if one.speedup is None else TableCell(f"{one.speedup:.2f}x", one.speedup),
        TableCell("–") if one.memory is None else TableCell(number(one.memory / 1e9, 3), one.memory / 1e9),
        TableCell("yes" if chosen else "no"),
    )
