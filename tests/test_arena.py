"""The arena's page, from a made-up run whose losses are known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_up_runs import DENSE, MadeUpRun

from prunelab.errors import InvalidRequest
from prunelab.report.arena import Standing, frontier, page, standings, verdicts, write_arena
from prunelab.report.figures.files import draw

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
            made.speed("m", cut, 200.0 if method == "shortgpt" else 100.0, seed=seed)
    return made


def test_losses_are_differences_from_the_dense_model(tmp_path: Path) -> None:
    found = {one.method: one for one in standings(made_up(tmp_path).run().measurements)}
    assert list(found) == ["shortgpt", "flap", "auto"]
    flap = found["flap"]
    assert flap.ln_perplexity == pytest.approx((0.4, 0.4, 0.4))
    assert flap.accuracy == pytest.approx((19, 20, 21))
    assert (flap.speed, found["shortgpt"].speed) == ((1.0,) * 3, (2.0,) * 3)


def test_the_aim_is_half_of_the_better_rivals_loss_in_both(tmp_path: Path) -> None:
    found = standings(made_up(tmp_path).run().measurements)
    assert "auto: 10 at 0.1" in frontier(found).panels[0].alt
    draw(frontier(found)).savefig(tmp_path / "arena.svg")
    (verdict,) = verdicts(found, "auto")
    assert verdict.ln_perplexity == pytest.approx((0.1, 0.4))
    assert verdict.accuracy == pytest.approx((10, 20))
    assert verdict.is_met
    others = [one for one in found if one.method != "auto"]
    for rise, fall, met in ((0.2, 10.0, True), (0.21, 10.0, False), (0.1, 10.1, False)):
        own = Standing("m", "auto", 0.2, 0.2, (rise,), (fall,), ())
        assert [one.is_met for one in verdicts([*others, own], "auto")] == [met]
    assert list(verdicts(found, "greedy_depth")) == []


def test_the_page_holds_means_spreads_and_the_verdict(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    text = page(standings(made.run().measurements), "auto", ["arc_easy"], [Path("run")], Path("docs/arena.md"))
    assert "| m | 20% | 0.100 | 0.400 | 10.0 | 20.0 | yes |" in text
    assert "| 20% | `flap` | 20.0% | 0.400 ± 0.000 | 20.0 ± 1.0 | 1.00 ± 0.00x |" in text
    assert text.index("`auto` | 20.0%") < text.index("`flap` | 20.0%") < text.index("`shortgpt` | 20.0%")
    assert "3 draws" in text
    assert "python -m prunelab.report.arena run --out docs/arena.md" in text


def test_a_cell_that_lacks_a_benchmark_is_named(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    made.measured = [
        one for one in made.measured if (one.primary.method, one.primary.benchmark) != ("flap", "arc_easy")
    ]
    with pytest.raises(InvalidRequest, match=r"m flap 20% was not measured on arc_easy: let the study finish"):
        standings(made.run().measurements)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is no finished run"):
        write_arena([tmp_path], tmp_path / "arena.md")
