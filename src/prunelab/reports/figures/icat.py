"""StereoSet by domain (the paper's Fig. 5 and 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.reports.chart import Chart, Point, Radar, Series
from prunelab.reports.columns import marker_of, number, series_name
from prunelab.reports.grid import ReportCut, Study

if TYPE_CHECKING:
    from prunelab.studies.store import Measurement

DOMAINS = ("gender", "profession", "race", "religion")


def icat_radar(study: Study) -> Chart | None:
    """ICAT by domain and overall, one panel per model and ratio: dense, depth, width and hybrid."""
    panels = []
    for model in study.grid.models:
        cuts = [cut for cut in study.grid.of_model(model, dense=False) if not cut.is_baseline]
        for ratio in dict.fromkeys(cut.ratio for cut in cuts):
            shown = [ReportCut(model, "dense", 0.0), *(cut for cut in cuts if cut.ratio == ratio)]
            series = tuple(line for cut in shown if (line := _series(study, cut)) is not None)
            if len(series) > 1:
                axes = ("overall", *DOMAINS)
                panels.append(Radar(f"{model}: ICAT at {ratio:.0%}", model, axes, series))
    caption = (
        "As the paper's Fig. 5 and 7. 100 is best; a model that chooses at random scores 50, so also read the language "
        "modelling score (LMS) in the table."
    )
    return Chart("icat", "ICAT by domain", caption, tuple(panels)) if panels else None


def _series(study: Study, cut: ReportCut) -> Series | None:
    by_group = scores(study, cut, "icat")
    values = [by_group.get(group) for group in ("", *DOMAINS)]
    points = [
        Point(spoke, m.value, tip=f"{cut.model}, {cut.label}, {m.group or 'overall'}: ICAT {number(m.value, 3)}")
        for spoke, m in enumerate(values)
        if m is not None
    ]
    if len(points) < len(values):
        return None
    return Series(series_name(cut.method), cut.strategy, tuple(points), marker_of(cut.method))


def scores(study: Study, cut: ReportCut, metric: str) -> dict[str, Measurement]:
    """StereoSet's measurements of a cut's first seed, by group."""
    by_group: dict[str, Measurement] = {}
    for m in study.figures_of(cut, "stereoset"):
        if m.metric == metric:
            by_group.setdefault(m.group, m)
    return by_group
