"""Which cut to take, by the rules of `prunelab recommend`."""

from __future__ import annotations

from prunelab.errors import InvalidRequest
from prunelab.recommend import KEEP, Candidate, Need, Recommendation, recommend
from prunelab.report.columns import number
from prunelab.report.grid import Study
from prunelab.report.parts import Cell, Code, Listing, Part, Row, Section, Sheet


def section(study: Study) -> Section | None:
    """For each model the default need: the smallest cut that keeps most of the quality."""
    parts: list[Part] = []
    for model in study.grid.models:
        if not study.grid.of_model(model, dense=False):
            continue
        try:
            parts += _of_model(recommend(study.run, Need(model=model)), model)
        except InvalidRequest as error:
            parts.append(Listing(f"{model}: no recommendation", (str(error),), model))
    lead = (
        f"For the usual need: the smallest model that keeps {KEEP:.0%} of the quality. `prunelab recommend "
        f"{study.run.folder.name} --keep 90% --speedup 1.2 --memory 12GB` answers others."
    ).replace("`", "")
    return Section("recommendation", "What to take", lead, tuple(parts)) if parts else None


def _of_model(found: Recommendation, model: str) -> list[Part]:
    choice = found.choice
    cut = f"{choice.cut.method} at {choice.cut.ratio:.0%} (removes {choice.cut.achieved_ratio:.1%})"
    lines = [f"Why: {found.why}."]
    if choice.fell:
        lines.append("What it costs: " + "; ".join(one.sentence() for one in choice.fell) + ".")
    lines += [f"Left out: {'; '.join(found.left_out)}."] if found.left_out else []
    lines += [f"Not measured: {'; '.join(found.not_measured)}."] if found.not_measured else []
    lines += [f"{one.cut.method} at {one.cut.ratio:.0%}: {why}." for one, why in found.runners_up]
    title = f"{model}: {cut}" if choice.feasible else f"{model}: nothing is feasible; nearest is {cut}"
    return [Listing(title, tuple(lines), model), Code(found.command), _frontier(found, model)]


def _frontier(found: Recommendation, model: str) -> Sheet:
    shown = [found.choice, *(one for one in found.frontier if one is not found.choice)]
    rows = tuple(Row(_cells(one, one is found.choice), model, strategy=one.cut.strategy) for one in shown)
    slug = "".join(c if c.isalnum() or c in "-_." else "_" for c in model)
    columns = ("cut", "removes", "quality kept", "speed", "memory, GB", "chosen")
    caption = f"{model}: the choice, and the other cuts that meet the need and that no cut beats ({found.memory_is})"
    return Sheet(f"recommendation_{slug}", caption, columns, rows, folded=True)


def _cells(one: Candidate, chosen: bool) -> tuple[Cell, ...]:
    return (
        Cell(f"{one.cut.method} {one.cut.ratio:.0%}"),
        Cell(f"{one.cut.achieved_ratio:.1%}", one.cut.achieved_ratio),
        Cell("–") if one.quality is None else Cell(f"{one.quality:.1%}", one.quality),
        Cell("–") if one.speedup is None else Cell(f"{one.speedup:.2f}x", one.speedup),
        Cell("–") if one.memory is None else Cell(number(one.memory / 1e9, 3), one.memory / 1e9),
        Cell("yes" if chosen else "no"),
    )
