"""What the figures draw, compared as data: the page's SVG and matplotlib's lines have the numbers of the run."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_runs import DENSE, MadeUpRun
from made_up_study import MadeUpStudy

from prunelab.reports import write_report
from prunelab.reports.chart import Chart, HeatMap, Panel, Radar
from prunelab.reports.content import report_of
from prunelab.reports.figures.by_ratio import accuracy_by_ratio, ln_perplexity
from prunelab.reports.figures.data import chart_sheet
from prunelab.reports.figures.differences import depth_minus_width, difference_chart
from prunelab.reports.figures.files import draw, write_chart
from prunelab.reports.figures.svg import panel_svg
from prunelab.reports.figures.ticks import ticks
from prunelab.reports.grid import Study
from prunelab.studies.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    return MadeUpStudy(folder, models=("m",), ratios=(0.1, 0.3), seeds=(0, 1), size=0.01, blocks=8).run()


@pytest.fixture(scope="module")
def charts(run: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in report_of(run).charts}


def panel_of(chart: Chart, title: str) -> Any:
    return next(panel for panel in chart.panels if panel.title == title)


def test_all_of_the_papers_figures_and_ours_are_there(charts: dict[str, Chart]) -> None:
    assert set(charts) == {
        "quality_by_ratio", "accuracy_by_ratio", "pass_at_1", "depth_minus_width", "ln_perplexity", "icat",
        "frontier_speed", "frontier_memory", "plans",
    }  # fmt: skip


def test_accuracy_by_ratio_has_the_runs_numbers(run: Run, charts: dict[str, Chart]) -> None:
    panel = panel_of(charts["accuracy_by_ratio"], "m: ARC-Easy, 0-shot")
    own = [m for m in run.measurements if m.benchmark == "arc_easy" and m.primary]
    measured = {(m.method, m.ratio): m for m in own}
    lines = {line.name: line.points for line in panel.series}
    for name, method in (("shortgpt (depth)", "shortgpt"), ("flap (width)", "flap"), ("hybrid", "hybrid")):
        expected = [measured["dense", 0.0], measured[method, 0.1], measured[method, 0.3]]
        assert [p.x for p in lines[name]] == pytest.approx([100 * m.achieved_ratio for m in expected])
        assert [p.y for p in lines[name]] == pytest.approx([100 * m.value for m in expected])
        errors = [100 * (m.standard_error or 0) for m in expected]
        assert [p.high - p.y for p in lines[name]] == pytest.approx(errors)
        assert [p.y - p.low for p in lines[name]] == pytest.approx(errors)
    draws = [
        m.value for m in run.measurements if m.benchmark == "arc_easy" and m.method == "random_depth" and m.ratio == 0.3
    ]
    mean = sum(draws) / 2
    last = lines["random_depth"][-1]
    assert last.y == pytest.approx(100 * mean)
    assert last.high - last.y == pytest.approx(100 * abs(draws[0] - draws[1]) / math.sqrt(2)), "the spread of its seeds"
    assert [level.y for level in panel.levels] == [pytest.approx(25.016, abs=1e-3)], "what guessing earns"


def test_a_line_under_another_is_named(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    for cut, right in (
        (DENSE, 800), (("shortgpt", 0.1), 700), (("shortgpt", 0.2), 600), (("hybrid", 0.1), 700),
        (("hybrid", 0.2), 600), (("flap", 0.1), 700), (("flap", 0.2), 500),
    ):  # fmt: skip
        made.questions("m", cut, "boolq", right)
    run = made.run()
    chart = accuracy_by_ratio(Study.of(run).grid)
    assert chart is not None
    (panel,) = chart.panels
    assert panel.covered == ("hybrid: identical to shortgpt (depth)",)
    assert "hybrid: identical to shortgpt (depth)" in [text.get_text() for text in draw(chart).axes[0].texts]
    write_report(run)
    assert '<p class="covered">hybrid: identical to shortgpt (depth)</p>' in (
        tmp_path / "report" / "index.html"
    ).read_text(encoding="utf-8")


def test_a_point_is_hollow_where_no_change_was_seen(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    made.questions("m", DENSE, "boolq", 800)
    made.questions("m", ("flap", 0.1), "boolq", 797)
    made.questions("m", ("flap", 0.2), "boolq", 600)
    chart = accuracy_by_ratio(Study.of(made.run()).grid)
    assert chart is not None
    (panel,) = chart.panels
    assert isinstance(panel, Panel)
    assert [p.hollow for p in panel.series[0].points] == [False, True, False]
    assert str(panel_svg(panel)).count('class="point open"') == 1
    (hollow,) = [line for line in draw(chart).axes[0].lines if line.get_label() == "_hollow"]
    assert np.asarray(hollow.get_xdata()).tolist() == [10]
    assert hollow.get_markerfacecolor() == "white"


def test_perplexity_is_drawn_as_its_logarithm(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    for cut, loss in ((DENSE, 2.0), (("flap", 0.1), 2.5)):
        made.add("m", cut, "wikitext2", {"token_perplexity": math.exp(loss)}, error=0.1 * math.exp(loss))
    chart = ln_perplexity(Study.of(made.run()).grid)
    assert chart is not None
    (panel,) = chart.panels
    assert isinstance(panel, Panel)
    points = panel.series[0].points
    assert [p.y for p in points] == pytest.approx([2.0, 2.5])
    assert [p.high for p in points] == pytest.approx([2.1, 2.6]), "the relative error"


def test_depth_minus_width(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    ratios = [(i + 1) / 20 for i in range(8)]
    for ratio in ratios:
        for method, right in (("shortgpt", 700), ("flap", 600)):
            made.questions("m", (method, ratio), "boolq", right)
            made.questions("m", (method, ratio), "arc_easy", right + 50 * (method == "flap"))
            made.windows("m", (method, ratio), 3.0 if method == "shortgpt" else 2.5)
    study = Study.of(made.run())
    chart = difference_chart(depth_minus_width(study), study)
    assert chart is not None
    shares, logs = chart.panels
    assert isinstance(shares, Panel)
    assert isinstance(logs, Panel)
    assert shares.categories == ("BoolQ", "ARC-Easy")
    first = shares.series[0].points
    assert [p.x for p in first] == pytest.approx([10, 5])
    assert all(p.low is not None and p.high is not None and p.low < p.x < p.high for p in first)
    assert [p.x for p in logs.series[0].points] == pytest.approx([0.5])
    # However many ratios there are, each point lies on its benchmark's row.
    assert [[round(p.y) for p in line.points] for line in shares.series] == [[0, 1]] * len(ratios)
    assert len(chart_sheet(chart).rows) == 3 * len(ratios)


def test_the_heat_map_says_what_plans_removed(run: Run, charts: dict[str, Chart]) -> None:
    groups = panel_of(charts["plans"], "m: key-value groups")
    assert isinstance(groups, HeatMap)
    for label, method in (("shortgpt 30%", "shortgpt"), ("flap 30%", "flap")):
        plan = next(run.planned[m.plan] for m in run.measurements if m.method == method and m.ratio == 0.3 and m.plan)
        row = groups.rows.index(label)
        assert groups.values[row] == pytest.approx(plan.removed["key_value_groups"])
    depth = groups.values[groups.rows.index("shortgpt 30%")]
    assert sorted(share or 0.0 for share in depth) == [0] * 6 + [1] * 2, "30 % of eight blocks"
    width = groups.rows.index("flap 30%")
    block = next(b for b, share in enumerate(groups.values[width]) if share)
    assert re.search(rf"block {block}: \d+% removed: numbers? \d", groups.tips[width][block])


def test_radars_have_every_domain(charts: dict[str, Chart], run: Run) -> None:
    radar = charts["icat"].panels[0]
    assert isinstance(radar, Radar)
    dense = next(line for line in radar.series if line.name == "dense")
    wanted = {m.group: m.value for m in run.measurements if m.metric == "icat" and m.method == "dense"}
    assert [p.y for p in dense.points] == [wanted[g] for g in ("", "gender", "profession", "race", "religion")]


def test_the_svg_has_every_point_where_it_belongs(charts: dict[str, Chart]) -> None:
    panel = panel_of(charts["accuracy_by_ratio"], "m: ARC-Easy, 0-shot")
    root = ElementTree.fromstring(str(panel_svg(panel)))
    assert root.get("role") == "img"
    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter("circle")]
    line = next(line for line in panel.series if line.marker == "circle")
    assert len(circles) == len(line.points)
    # Pixels are linear in the data, down being up.
    for a, b in ((0, 1), (0, 2)):
        (xa, ya), (xb, yb) = circles[a], circles[b]
        p, q = line.points[a], line.points[b]
        right = (circles[-1][0] - circles[0][0]) / (line.points[-1].x - line.points[0].x)
        down = (circles[-1][1] - circles[0][1]) / (line.points[-1].y - line.points[0].y)
        assert xb - xa == pytest.approx(right * (q.x - p.x), abs=0.2)
        assert yb - ya == pytest.approx(down * (q.y - p.y), abs=0.2)
        assert down < 0


def test_matplotlib_draws_the_same_numbers(charts: dict[str, Chart], tmp_path: Path) -> None:
    for chart in charts.values():
        figure = draw(chart)
        for axes, panel in zip(figure.axes, chart.panels, strict=False):
            if isinstance(panel, HeatMap):
                image = axes.images[0].get_array()
                assert image is not None
                drawn = [[float(v) for v in row] for row in image]
                assert drawn == [pytest.approx(list(row)) for row in panel.values]
                continue
            lines = {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
            for series in panel.series:
                x, y = (np.asarray(data) for data in lines[series.name].get_data())
                if isinstance(panel, Panel):
                    assert [x.tolist(), y.tolist()] == [[p.x for p in series.points], [p.y for p in series.points]]
                else:
                    closed = [*series.points, series.points[0]]
                    assert np.hypot(x, y) == pytest.approx([p.y for p in closed]), "how far from the middle"
                    turns = np.degrees(np.arctan2(x, y)) % 360
                    assert turns == pytest.approx([360 * p.x / len(panel.axes) for p in closed]), (
                        "from the top, clockwise"
                    )
    files = write_chart(charts["pass_at_1"], tmp_path)
    assert [path.name for path in files] == ["pass_at_1.svg", "pass_at_1.png"]
    again = write_chart(charts["pass_at_1"], tmp_path / "again")
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert files[0].read_bytes() == again[0].read_bytes(), "the same data, the same file"


def test_a_charts_numbers_as_a_table(charts: dict[str, Chart]) -> None:
    for chart in charts.values():
        sheet = chart_sheet(chart)
        assert sheet.rows
        assert all(len(row.cells) == len(sheet.columns) for row in sheet.rows)
        lines = [line for panel in chart.panels if not isinstance(panel, HeatMap) for line in panel.series]
        points = [point for line in lines if line.marker != "none" for point in line.points]
        if points:
            assert len(sheet.rows) == len(points)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 4, [-2, 0, 2, 4]), (5, 5, [5])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
