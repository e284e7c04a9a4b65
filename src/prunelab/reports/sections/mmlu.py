"""MMLU by category and subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.elements import Row, Section, TableCell, TableData
from prunelab.reports.grid import ReportCut, Study

if TYPE_CHECKING:
    from prunelab.studies.store import Measurement


def section(study: Study) -> Section | None:
    """One table per model: subjects in rows, cuts in columns, without baselines."""
    sheets = [sheet for model in study.grid.models if (sheet := _sheet(study, model)) is not None]
    lead = (
        "Categories first, then subjects, shaded by the difference from the dense model. Subjects have few questions "
        "(n), so their differences are noisy."
    )
    return Section("mmlu", "MMLU by subject", lead, tuple(sheets), "MMLU") if sheets else None


def _sheet(study: Study, model: str) -> TableData | None:
    cuts = [cut for cut in study.grid.of_model(model) if not cut.is_baseline]
    by_cut_and_group: dict[tuple[ReportCut, str], Measurement] = {}
    for m in study.run.measurements:
        if m.benchmark == "mmlu" and m.metric == "acc" and m.model == model:
            by_cut_and_group.setdefault((ReportCut(m.model, m.method, m.ratio), m.group), m)
    groups = sorted({group for _, group in by_cut_and_group}, key=lambda group: (group.count("/") + bool(group), group))
    if len(groups) < 2:
        return None
    dense = ReportCut(model, "dense", 0.0)
    rows = []
    for group in groups:
        cells = [_cell(by_cut_and_group.get((cut, group)), by_cut_and_group.get((dense, group))) for cut in cuts]
        name = group.split("/")[-1].replace("_", " ") or "all"
        count = next(m.n for (_, of), m in by_cut_and_group.items() if of == group)
        identity = (TableCell(name if "/" in group else name.upper()), TableCell(str(count), count))
        rows.append(Row((*identity, *cells), model))
    slug = "".join(c if c.isalnum() or c in "-_." else "_" for c in model)
    columns = ("subject", "n", *(cut.label for cut in cuts))
    return TableData(f"mmlu_{slug}", f"{model}: MMLU accuracy by subject", columns, tuple(rows), folded=True)


def _cell(m: Measurement | None, dense: Measurement | None) -> TableCell:
    if m is None:
        return TableCell("–")
    change = None if dense is None else m.value - dense.value
    return TableCell(f"{m.value:.3f}", m.value, heat=None if change is None else max(-1.0, min(2 * change, 1.0)))
