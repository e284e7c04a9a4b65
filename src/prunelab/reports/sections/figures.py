"""The paper's figures, drawn from this run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.columns import number
from prunelab.reports.elements import Figure, Part, Row, Section, TableCell, TableData
from prunelab.reports.figures.by_ratio import accuracy_by_ratio, ln_perplexity, pass_at_1
from prunelab.reports.figures.differences import DepthMinusWidth, depth_minus_width, difference_chart
from prunelab.reports.figures.icat import DOMAINS, icat_radar, scores

if TYPE_CHECKING:
    from prunelab.reports.grid import Study


def section(study: Study) -> Section | None:
    """Fig. 1 and 6, 2, 3, 4, 5 and 7."""
    differences = depth_minus_width(study)
    charts = (
        accuracy_by_ratio(study.grid),
        pass_at_1(study.grid),
        difference_chart(differences, study),
        ln_perplexity(study.grid),
        icat_radar(study),
    )
    parts: list[Part] = []
    for chart in charts:
        if chart is not None:
            parts.append(Figure(chart))
            if chart.name == "depth_minus_width":
                parts.append(_differences(differences))
            if chart.name == "icat":
                parts.append(_stereoset(study))
    lead = "The paper's figures for this run's models, with error bars and achieved ratios added."
    return Section("figures", "The paper's figures", lead, tuple(parts), "Figures") if parts else None


def _differences(differences: list[DepthMinusWidth]) -> TableData:
    rows = []
    for d in differences:
        low, high = d.interval or (None, None)
        unit = "ln" if d.column.is_perplexity else "points"
        rows.append(
            Row(
                (
                    TableCell(d.depth.model),
                    TableCell(d.column.title),
                    TableCell(f"{d.depth.ratio:.0%}", d.depth.ratio),
                    TableCell(f"{d.depth.method} − {d.width.method}"),
                    TableCell(number(d.difference, 3), d.difference),
                    TableCell("–" if low is None or high is None else f"{number(low, 3)} to {number(high, 3)}"),
                    TableCell(unit),
                    TableCell("paired" if d.paired else "unpaired"),
                ),
                d.depth.model,
            )
        )
    columns = ("model", "benchmark", "ratio", "methods", "difference", "95 % interval", "unit", "interval is")
    caption = "Depth minus width at matched size, by benchmark"
    return TableData("depth_minus_width", caption, columns, tuple(rows), heading=1, folded=True)


def _stereoset(study: Study) -> TableData:
    """ICAT and its components, by domain."""
    rows = []
    for cut in study.grid.sorted_cuts:
        metrics = {metric: scores(study, cut, metric) for metric in ("icat", "lms", "ss")}
        for group in ("", *DOMAINS) if metrics["icat"] else ():
            scores_by_group = [metrics[metric].get(group) for metric in metrics]
            figures = tuple(
                TableCell("–") if m is None else TableCell(f"{m.value:.1f}", m.value) for m in scores_by_group
            )
            identity = (TableCell(cut.model), TableCell(cut.label), TableCell(group or "overall"))
            rows.append(Row(identity + figures, cut.model, cut.is_baseline, cut.strategy))
    caption = "StereoSet: ICAT, language modelling score (LMS) and stereotype score (SS; 50 is fair)"
    columns = ("model", "cut", "domain", "ICAT", "LMS", "SS")
    return TableData("stereoset", caption, columns, tuple(rows), heading=1, folded=True)
