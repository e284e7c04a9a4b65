"""The report's tables: golden files, what is kept of the dense model, the paper's tables, and what stands in words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import Ran
from made_up_runs import DENSE, MadeUpRun
from made_up_study import MadeUpStudy, golden_study, golden_tables

from prunelab.analysis.recommend import Need, recommend
from prunelab.evaluation.metrics.repetition import repeats_itself
from prunelab.reports import write_report
from prunelab.reports.content import ReportContent, report_of
from prunelab.reports.elements import AnswerComparison, Row, TableCell, TableData
from prunelab.reports.grid import ReportCut, Study
from prunelab.reports.render_html import page
from prunelab.reports.retention import mean_quality
from prunelab.reports.rows import table_rows, text_columns
from prunelab.reports.sections import recommendation
from prunelab.reports.summary import brief
from prunelab.studies.run import Run

GOLDEN = Path(__file__).parents[1] / "golden" / "tables"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return golden_study(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: Run) -> ReportContent:
    return report_of(run)


def sheet(report: ReportContent, name: str) -> TableData:
    return next(one for one in report.sheets if one.name == name)


def rows(sheet: TableData) -> list[dict[str, str]]:
    return [{name: cell.text for name, cell in zip(sheet.columns, row.cells, strict=True)} for row in sheet.rows]


def same(found: str, golden: str) -> bool:
    """Equal, but for the last digits of numbers: sums may be taken in another order elsewhere."""
    try:
        return math.isclose(float(found), float(golden), rel_tol=1e-6, abs_tol=1e-9)
    except ValueError:
        return found == golden


def test_the_golden_tables(run: Run) -> None:
    """The content of every table; after an intended change, regenerate it with `python tests/golden/write.py`."""
    found = golden_tables(run)
    assert set(found) == {path.name for path in GOLDEN.iterdir()}
    for name, text in found.items():
        golden = (GOLDEN / name).read_text()
        if name.endswith(".md"):
            assert text == golden, name
            continue
        pairs = [list(csv.reader(io.StringIO(one))) for one in (text, golden)]
        assert [len(row) for row in pairs[0]] == [len(row) for row in pairs[1]], name
        for own, kept in zip(*pairs, strict=True):
            assert all(map(same, own, kept)), (name, own, kept)


def test_every_written_file(run: Run) -> None:
    write_report(run)
    folder = run.folder / "report"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"index.html", "report.md", "tables/main.csv", "tables/main.md", "figures/icat.svg", "figures/icat.png",
            "tables/figure_icat.csv", "tables/cells.csv"} <= written  # fmt: skip
    text = (folder / "report.md").read_text()
    for section in report_of(run).sections:
        assert f"## {section.title}" in text
    for name in ("icat", "plans", "frontier_speed"):
        assert f"(figures/{name}.svg)" in text
    assert page(report_of(run)) == (folder / "index.html").read_text(), "the same run, the same report"


def test_depth_and_width_stand_at_the_ratio_that_was_achieved(report: ReportContent, run: Run) -> None:
    table = {row["cut"]: row for row in rows(sheet(report, "main"))}
    measured = {f"{m.method} {m.ratio:.0%}": m for m in run.measurements if m.primary and m.method != "dense"}
    for cut, m in measured.items():
        if m.method != "random_depth":
            assert table[cut]["achieved"] == f"{m.achieved_ratio:.1%}"


def test_what_is_kept(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    for cut, right in ((DENSE, 800), (("flap", 0.1), 690), (("flap", 0.2), 100)):
        made.questions("m", cut, "arc_easy", right)
        made.questions("m", cut, "boolq", 510)
    study = Study.of(made.run())
    report = report_of(study.run)
    plain, led = (rows(sheet(report, name)) for name in ("retained", "retained_above_chance"))
    assert (plain[0]["ARC-Easy"], plain[0]["BoolQ"]) == ("86%", "100%")
    # Guessing earns 0.25016 on ARC-Easy: 0.43984 of 0.54984 is left, then less than nothing.
    assert (led[0]["ARC-Easy"], led[1]["ARC-Easy"]) == ("80%", "-27%")
    assert led[0]["BoolQ"] == "–", "51 % of 1000 yes-or-no questions is guessing"
    assert mean_quality(study.grid, ReportCut("m", "flap", 0.1)) == pytest.approx(0.43984 / 0.54984, abs=1e-4)
    assert mean_quality(study.grid, ReportCut("m", "flap", 0.2)) == 0


def test_the_report_and_the_recommendation_mean_the_same_by_quality(run: Run) -> None:
    study = Study.of(run)
    found = recommend(run, Need(model="LLaMA-3-8B"))
    for one in (found.choice, *found.frontier, *(one for one, _ in found.runners_up)):
        cut = ReportCut(one.cut.model, one.cut.method, one.cut.ratio)
        assert mean_quality(study.grid, cut) == pytest.approx(one.quality)


def test_the_papers_tables(report: ReportContent) -> None:
    first = {row["cut"]: row for row in rows(sheet(report, "paper_ifeval"))}
    assert [first[cut]["paper"] for cut in ("dense", "shortgpt 20%", "flap 20%", "hybrid 20%")] == [
        "0.41", "0.216", "0.258", "–",
    ]  # fmt: skip
    second = {row["cut"]: row for row in rows(sheet(report, "paper_throughput"))}
    assert second["shortgpt 10%"]["paper, of the dense model"] == "113%"


def test_table_3_stands_side_by_side(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path, ("Idefics3-8B",), ("shortgpt", "flap"), (0.1, 0.2), size=0.01, blocks=8)
    report = report_of(study.run())
    table = {row["cut"]: row for row in rows(sheet(report, "paper_multimodal"))}
    names = [name.lower() for name in table["flap 20%"]]
    assert names == ["model", "cut", "achieved", "pope, %", "mmmu, %", "paper: pope, %", "paper: mmmu, %"]
    *_, pope, _, theirs, mmmu = table["flap 20%"].values()
    assert (theirs, mmmu) == ("54.24", "39.11")
    assert 50 < float(pope.split()[0]) < 100


def test_how_generation_breaks(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    loop = "and then and then and then and then and then and then"
    for cut, texts in ((DENSE, ["4", "5", "6", "7"]), (("flap", 0.1), ["4", loop, loop, ""])):
        records = pd.DataFrame(
            {
                "sample": list("abcd"), "text": texts, "correct": [len(text) == 1 for text in texts],
                "prediction": [text if len(text) == 1 else "[invalid]" for text in texts],
            }
        )  # fmt: skip
        made.add("m", cut, "gsm8k", {"exact_match": records["correct"].mean()}, records, shots=5)
    made.programs("m", DENSE, 50)
    made.programs("m", ("flap", 0.1), 20, syntax_errors=40, repeats=30)
    for one in made.measured[-2:]:
        share = {"metric": "syntax_error", "value": 0.4 if one.primary.method == "flap" else 0.0, "primary": False}
        one.measurements.append(one.primary.model_copy(update=share))  # type: ignore[attr-defined]
    whole, pruned = rows(sheet(report_of(made.run()), "breakage"))
    assert (whole["GSM8K: cannot be read"], pruned["GSM8K: cannot be read"]) == ("0.0%", "75.0%")
    assert (whole["GSM8K: repeats itself"], pruned["GSM8K: repeats itself"]) == ("0.0%", "50.0%")
    assert (whole["HumanEval: does not compile"], pruned["HumanEval: does not compile"]) == ("0.0%", "40.0%")


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False), ("a b a b a b a b a b a", True), ("x " * 5, False), ("x " * 8, True), ("no end " * 300, True),
        ("one two three four five", False), ("word " + "another one is here . " * 4 + "an", True),
    ],
)  # fmt: skip
def test_a_text_that_repeats_itself(text: str, loops: bool) -> None:
    assert repeats_itself(text) is loops


def test_samples_stand_side_by_side_worst_first(report: ReportContent) -> None:
    section = next(one for one in report.sections if one.name == "completions")
    pairs = [part for part in section.parts if isinstance(part, AnswerComparison)]
    lost = [int(pair.lost.split()[0]) for pair in pairs if "gsm8k" in pair.sample]
    assert lost == sorted(lost, reverse=True)
    first = pairs[0]
    assert first.answers[0].who == "dense"
    assert first.answers[0].right
    assert all(not answer.right for answer in first.answers[1:])


def test_what_models_wrote_is_no_markup(report: ReportContent) -> None:
    html = page(report)
    assert "<b>whatever</b>" not in html
    assert "&lt;b&gt;whatever&lt;/b&gt; &amp; however" in html


def test_rows_say_nothing_twice() -> None:
    p_values = (("< 0.001", 0.0002), ("0.034", 0.034))
    speeds = (("9.5x", 9.5), ("10.2x*", 10.2))
    rows_ = tuple(
        Row(
            (
                TableCell("m"),
                TableCell(f"cut {i}"),
                TableCell(p, value),
                TableCell(speed, times, mark="worse"),
                TableCell("–"),
            ),
            "m",
            i == 1,
            "depth",
        )
        for i, ((p, value), (speed, times)) in enumerate(zip(p_values, speeds, strict=True))
    )
    one = TableData("x", "x", ("model", "cut", "p", "speed", "left out"), rows_, heading=1)
    first, second = str(table_rows(one)).splitlines()
    assert first == (
        "<tr><td>m<th scope=row class=s-depth>cut 0<td data-v=0.0002>&lt; 0.001<td class=worse>9.5x<td class=d>–"
    )
    assert second.startswith("<tr data-baseline><td>m<th")
    assert text_columns(one) == "t1 t2 t5"
    elsewhere = TableData("x", "x", ("cut", "share"), (Row((TableCell("c"), TableCell("40%", 0.4, heat=-0.62)), "m"),))
    assert str(table_rows(elsewhere)) == '<tr data-model="m"><th scope=row>c<td class=n12>40%\n'


def test_a_model_in_short(tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    for cut, sums, arc in ((DENSE, 500, 800), (("shortgpt", 0.1), 480, 799), (("flap", 0.1), 250, 795)):
        made.questions("m", cut, "gsm8k", sums)
        made.questions("m", cut, "arc_easy", arc)
        made.questions("m", cut, "boolq", 505)
    found = brief(Study.of(made.run()), "m")
    assert found.strategies == ("depth", "width")
    # 480 of 500 and 0.54884 of 0.54984 are kept, then half and 0.54484.
    assert found.kept == (("10%", ("98%", "75%")),)
    assert found.lost == ("Most degraded at 10%: GSM8K (73% retained).", "Preserved: ARC-Easy.")
    assert found.take.startswith("Recommended: shortgpt at 10% retains 97.9% of the quality.")
    assert "--method shortgpt --ratio 0.1" in found.command
    assert found.sure[-1] == "Not informative, since the dense model is at chance: BoolQ."
    assert "2 of 6 paired tests show a significant loss" in found.sure[0]


def test_of_several_shots_the_benchmarks_own_counts(tmp_path: Path) -> None:
    (tmp_path / "a run").mkdir()
    made = MadeUpRun(tmp_path / "a run")
    for shots, keeps in ((0, 100), (5, 450)):
        made.questions("m", DENSE, "gsm8k", 500, shots=shots)
        made.questions("m", ("shortgpt", 0.1), "gsm8k", keeps, shots=shots)
    for shots, keeps in ((3, 820), (10, 600)):  # its own number, none, was not measured
        made.questions("m", DENSE, "winogrande", 900, shots=shots)
        made.questions("m", ("shortgpt", 0.1), "winogrande", keeps, shots=shots)
    made.questions("m", DENSE, "boolq", 505, shots=0)
    made.questions("m", DENSE, "boolq", 800, shots=5)
    study = Study.of(made.run())
    found = brief(study, "m")
    # 450 of 500, and 0.32 of 0.4 above chance; BoolQ is at chance with its default number of shots.
    assert found.kept == (("10%", ("85%",)),)
    assert found.lost == ("Most degraded at 10%: WinoGrande (80% retained) and GSM8K (90% retained).",)
    assert found.sure[-1] == "Not informative, since the dense model is at chance: BoolQ."
    advice = recommendation.section(study)
    assert advice is not None
    assert any(
        f"prunelab recommend '{tmp_path / 'a run'}' --keep" in getattr(part, "text", "") for part in advice.parts
    )


def test_a_run_without_anything_still_has_a_report(tmp_path: Path) -> None:
    empty = MadeUpRun(tmp_path).run()
    write_report(empty)
    assert "No cell of this study could be measured." in (tmp_path / "report" / "index.html").read_text()
    dense = MadeUpRun(tmp_path)
    dense.questions("m", DENSE, "arc_easy", 800)
    write_report(dense.run())
    assert "m (dense), evaluated on 1 benchmark" in (tmp_path / "report" / "index.html").read_text()


def test_a_report_of_no_run(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("report", tmp_path / "gone")
    assert ran.code == 2
    assert "is not a finished run" in ran.err
