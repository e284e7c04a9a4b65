"""Retention by benchmark: of the dense model's result, and of its margin over chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Part, Row, Section, TableCell, TableData
from prunelab.reports.retention import above_chance, retained

if TYPE_CHECKING:
    from prunelab.reports.columns import Column
    from prunelab.reports.grid import ReportCut, Study


def section(study: Study) -> Section | None:
    """Two tables, shaded by retention."""
    columns = [column for column in study.grid.columns if not column.is_timing]
    cuts = [cut for cut in study.grid.sorted_cuts if not cut.is_dense]
    parts: list[Part] = []
    if columns and cuts:
        caption = "Share of the dense model's result that is retained (perplexity: dense / pruned)"
        parts.append(_sheet(study, cuts, columns, "retained", caption, chance=False))
    guessed = [c for c in columns if c.chance is not None and not c.is_bias]
    if guessed and cuts:
        caption = "Share of the dense model's margin over chance that is retained"
        parts.append(_sheet(study, cuts, guessed, "retained_above_chance", caption, chance=True))
    lead = (
        "The first table overstates retention: on four-choice questions, guessing retains half of an accuracy of 50 %. "
        "The second table subtracts chance first, so 0 % means guessing. A dash means that the dense model does not "
        "beat chance by two standard errors."
    )
    return Section("kept", "Retention", lead, tuple(parts), "Retention") if parts else None


def _sheet(
    study: Study, cuts: list[ReportCut], columns: list[Column], name: str, caption: str, chance: bool
) -> TableData:
    rows = []
    for cut in cuts:
        shares = tuple(_cell(study, cut, column, chance) for column in columns)
        achieved = study.grid.achieved(cut)
        identity = (TableCell(cut.model), TableCell(cut.label), TableCell(f"{achieved:.1%}", achieved))
        rows.append(Row(identity + shares, cut.model, cut.is_baseline, cut.strategy))
    headings = ("model", "cut", "achieved", *(column.title for column in columns))
    return TableData(name, caption, headings, tuple(rows), heading=1)


def _cell(study: Study, cut: ReportCut, column: Column, chance: bool) -> TableCell:
    entry, dense = study.grid.entry(cut, column), study.grid.dense(cut.model, column)
    if entry is None or dense is None:
        return TableCell("–")
    guess = study.grid.chance(cut.model, column)
    share = above_chance(entry, dense, guess) if chance else retained(entry, dense, column)
    if share is None:
        return TableCell("–")
    tip = f"{column.text(entry.value)} of {column.text(dense.value)}"
    return TableCell(f"{share:.0%}", share, tip, heat=max(-1.0, min(share - 1, 1.0)))
