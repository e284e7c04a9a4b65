"""The arena's page, from a made-up run whose losses are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up_runs import DENSE, MadeUpRun

from prunelab.errors import InvalidRequest
from prunelab.reports.figures.files import draw
from prunelab.studies.run import Run
from tools.arena import page as arena
from tools.arena.calibration_size import calibration_size
from tools.arena.page import SPEEDS, frontier, page, write_arena
from tools.arena.standings import Standing, Time, read_times, standings, verdicts

LOSSES = {"shortgpt": (0.8, 40), "flap": (0.4, 20), "auto": (0.1, 10)}
"""What each method's ln perplexity rises by, and how many of a hundred answers it loses."""


def made_up(folder: Path) -> MadeUpRun:
    made = MadeUpRun(folder)
    for method, (rise, fewer) in {"dense": (0.0, 0), **LOSSES}.items():
        for seed in (0,) if method == "dense" else (0, 1, 2):
            cut = DENSE if method == "dense" else (method, 0.2)
            right = 90 - fewer - (0 if method == "dense" else seed - 1)
            records = pd.DataFrame({"sample": range(100), "correct": [i < right for i in range(100)]})
            made.windows("m", cut, 1.0 + rise, seed=seed)
            made.add("m", cut, "arc_easy", {"acc": right / 100}, records, seed=seed)
    return made


def test_losses_are_differences_from_the_dense_model(tmp_path: Path) -> None:
    found = {one.method: one for one in standings(made_up(tmp_path).run().measurements)}
    assert list(found) == ["shortgpt", "flap", "auto"]
    flap = found["flap"]
    assert flap.ln_perplexity == pytest.approx((0.4, 0.4, 0.4))
    assert flap.accuracy == pytest.approx((19, 20, 21))


def test_the_aim_is_half_of_the_better_rivals_loss_in_both(tmp_path: Path) -> None:
    found = standings(made_up(tmp_path).run().measurements)
    (verdict,) = verdicts(found, "auto")
    assert verdict.ln_perplexity == pytest.approx((0.1, 0.4))
    assert verdict.accuracy == pytest.approx((10, 20))
    assert verdict.is_met
    others = [one for one in found if one.method != "auto"]
    losses = {(0.2, 10.0): (), (0.21, 10.0): ("ln perplexity",), (0.1, 10.1): ("accuracy",)}
    for (rise, fall), missed in losses.items():
        own = Standing("m", "auto", 0.2, 0.2, (rise,), (fall,))
        assert [one.missed for one in verdicts([*others, own], "auto")] == [missed]
    assert list(verdicts(found, "greedy_depth")) == []


def test_the_page_holds_means_spreads_and_the_verdict(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    text = page(standings(made.run().measurements), "auto", {"arc_easy": 100}, "the command", Path("docs/arena.md"))
    bars = "0.4000 ± 0.0000 (`flap`) | 10.00 ± 1.00 | 20.00 ± 1.00 (`flap`)"
    assert f"| m | 20% | 0.1000 ± 0.0000 | {bars} | yes |" in text
    assert "Met in 1 of 1 combinations of model and ratio." in text
    assert "| 20% | `flap` | 20.0% | 0.4000 ± 0.0000 | 20.00 ± 1.00 |" in text
    assert text.index("`auto` | 20.0%") < text.index("`flap` | 20.0%") < text.index("`shortgpt` | 20.0%")
    assert "3 draws" in text
    assert "Made by `the command`" in text
    assert "`arc_easy` (100)" in text


def test_where_the_aim_is_missed_is_said_by_how_much() -> None:
    found = [
        Standing("m", method, 0.1, 0.1, (rise,), (fall,))
        for method, rise, fall in (("shortgpt", 0.5, 3.0), ("flap", 0.4, 5.0), ("auto", 0.21, 1.6))
    ]
    text = page(found, "auto", {"arc_easy": 100}, "the command", Path("arena.md"))
    assert "Missed: m at 10% (ln perplexity loss 0.2100, allowed 0.2000; accuracy loss 1.60, allowed 1.50)." in text
    assert "| 0.4000 (`flap`) | 1.60 | 3.00 (`shortgpt`) | no |" in text
    assert "peedup" not in text, "nothing was timed"


def test_a_model_that_is_asked_nothing_is_judged_by_perplexity_alone() -> None:
    found = [Standing("m", method, 0.1, 0.1, (rise,), ()) for method, rise in (("shortgpt", 0.5), ("auto", 0.2))]
    text = page(found, "auto", {"text:a.txt": 3}, "the command", Path("arena.md"))
    assert "| m | 10% | 0.2000 | 0.5000 (`shortgpt`) |  |  | yes |" in text
    assert "accuracy loss" not in text.split("## m")[1]


def test_the_figure_has_a_panel_a_measure_and_names_who_is_compared(tmp_path: Path) -> None:
    found = standings(made_up(tmp_path).run().measurements)
    others = [Standing("m", f"sublayer+{n}", 0.2, 0.2, (0.05,), (30.0,)) for n in ("none", "bias")]
    chart = frontier([*found, *others], "auto")
    assert [panel.y_label for panel in chart.panels] == ["ln perplexity lost", "accuracy lost, points"]  # type: ignore[union-attr]
    assert [line.name for line in chart.legend] == ["another method", "shortgpt", "flap", "auto", "least of all"]
    assert "least of all: 0 at 0, 0.05 at 20." in chart.panels[0].alt
    draw(chart).savefig(tmp_path / "arena.svg")


def test_rivals_may_be_calibrated_on_another_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_up(tmp_path)
    run, pages = made.run(), Path("pages")
    rivals = [one for one in made.measured if one.primary.method in ("dense", "shortgpt")]
    runs = {Path("run"): run, pages: replace(run, measured=rivals)}
    monkeypatch.setattr(arena, "load_run", runs.__getitem__)
    out = tmp_path / "arena.md"
    (tmp_path / "notes.md").write_text("Of note.\n")
    write_arena([Path("run")], out, rivals=[pages], notes=tmp_path / "notes.md")
    text = out.read_text()
    assert f"Made by `python -m tools.arena.page run --rivals pages --notes {tmp_path}/notes.md --out {out}`" in text
    assert "Of note.\n\n![" in text
    before, after = text.split("With both calibrated on `wikitext2`")
    assert "0.4000 ± 0.0000 (`flap`)" in before
    assert "0.8000 ± 0.0000 (`shortgpt`)" in after.split("## m")[0]
    assert (tmp_path / "arena.svg").exists()


def test_speeds_stand_beside_the_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not timed is said."""
    monkeypatch.setattr(arena, "load_run", {Path("run"): made_up(tmp_path).run()}.__getitem__)
    speeds, out = tmp_path / "speeds.csv", tmp_path / "arena.md"
    speeds.write_text("model,method,ratio,speed,spread\nm,shortgpt,0.2,1.254,0.031\nother,flap,0.2,9,0\n")
    write_arena([Path("run")], out, speeds=speeds)
    text = out.read_text()
    assert "| 20% | `shortgpt` | 20.0% | 0.8000 ± 0.0000 | 40.00 ± 1.00 | 1.25 ± 0.03 |" in text
    assert "| 20% | `flap` | 20.0% | 0.4000 ± 0.0000 | 20.00 ± 1.00 | not measured |" in text
    assert f"run --speeds {speeds} --out {out}`" in text
    assert SPEEDS in text
    speeds.write_text("model,method\nm,shortgpt\n")
    with pytest.raises(InvalidRequest, match=r"speeds.csv holds no speeds .*timing/arena_speed.py --out"):
        write_arena([Path("run")], out, speeds=speeds)


def test_losses_by_the_number_of_samples(tmp_path: Path) -> None:
    """A column a number, ascending, of what all runs have; a run that cannot be compared is named."""
    made = made_up(tmp_path)
    run = made.run()

    def of(samples: int, methods: tuple[str, ...], length: int = 256) -> Run:
        text = run.config.calibration.model_copy(update={"samples": samples, "sequence_length": length})
        own = [one for one in made.measured if one.primary.method in ("dense", *methods)]
        return replace(run, config=run.config.model_copy(update={"calibration": text}), measured=own)

    lines = calibration_size([of(96, ("flap", "auto")), of(24, ("flap",)), of(24, ("auto",)), of(48, tuple(LOSSES))])
    assert lines[2].startswith("Losses by the number of calibration samples of 256 tokens.")
    assert lines[4] == "| m at 20%, ln perplexity increase | 24 | 48 | 96 |"
    assert lines[6] == "| `flap` | 0.4000 ± 0.0000 | 0.4000 ± 0.0000 | 0.4000 ± 0.0000 |"
    assert lines[11] == "| `flap` | 20.00 ± 1.00 | 20.00 ± 1.00 | 20.00 ± 1.00 |"
    assert not any("shortgpt" in line for line in lines)
    once = of(24, ("flap",))
    once = replace(once, measured=[one for one in once.measured if not one.primary.seed])
    for runs in ([once, of(24, ("flap",))], [of(24, ("flap",)), once]):
        assert calibration_size(runs)[6] == "| `flap` | 0.4000 ± 0.0000 |", "more draws count"
    assert calibration_size([once])[6] == "| `flap` | 0.4000 |"
    found = standings(run.measurements)
    text = page(found, "auto", {"arc_easy": 100}, "the command", Path("a.md"), sizes=[of(24, ("flap",))])
    assert text.index("## m\n") < text.index("## How much calibration text\n")
    for other in (of(48, ("auto",)), of(48, ("flap",), 512)):
        with pytest.raises(InvalidRequest, match="cannot be compared by the number of samples"):
            calibration_size([of(24, ("flap",)), other])


def test_what_a_cut_costs_stands_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("method,passes,spread,seconds\nauto,40.2,1.5,61.0\nflap,1.1,0.1,2\n")
    times = read_times(tmp_path / "times.csv")
    assert times["auto"] == Time(40.2, 1.5, 61)
    found = [Standing("m", "auto", 0.1, 0.1, (0.1,), (0.1,))]
    text = page(found, "auto", {"arc_easy": 100}, "the command", Path("arena.md"), times)
    assert text.index("| `flap` | 1.1 ± 0.1 | 2.0 |") < text.index("| `auto` | 40.2 ± 1.5 | 61.0 |")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("other.csv", "none.csv"):
        with pytest.raises(InvalidRequest, match="holds no times"):
            read_times(tmp_path / name)


def test_a_cell_that_lacks_a_benchmark_is_named(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    made.measured = [
        one for one in made.measured if (one.primary.method, one.primary.benchmark) != ("flap", "arc_easy")
    ]
    with pytest.raises(InvalidRequest, match=r"m flap 20% was not measured on arc_easy: let the study finish"):
        standings(made.run().measurements)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not a finished run"):
        write_arena([tmp_path], tmp_path / "arena.md")


def test_notes_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_up(tmp_path).run()
    monkeypatch.setattr(arena, "load_run", lambda folder: run)
    with pytest.raises(InvalidRequest, match=r"none.md cannot be read"):
        write_arena([tmp_path], tmp_path / "arena.md", notes=tmp_path / "none.md")


def test_the_page_in_the_documentation_has_the_words_of_its_generator(tmp_path: Path) -> None:
    """The committed page must be what the generator would write, but for the figures of its runs."""
    root = Path(__file__).parents[1]
    committed = (root / "docs/arena.md").read_text(encoding="utf-8")
    found = standings(made_up(tmp_path).run().measurements)
    times, notes = {"auto": Time(1.0, 0.1, 2.0)}, (root / "configs/arena_notes.md").read_text(encoding="utf-8")
    speeds = {("m", "flap", 0.2): (1.0, 0.1)}
    text = page(found, "auto", {}, "", Path("arena.md"), times, speeds, {"wikitext2": found}, notes)
    prose = [
        line for line in text.splitlines() if line and not line.startswith(("Made by", "Met in", "All methods", "## m"))
    ]
    rows = [line for line in prose if line.startswith("| ") and any(digit in line for digit in "0123456789")]
    assert [line for line in prose if line not in rows and line not in committed.splitlines()] == []
    assert "All methods have the same budget (methods that remove whole blocks" in committed
    assert "Met in 9 of 11 combinations of model and ratio." in committed
