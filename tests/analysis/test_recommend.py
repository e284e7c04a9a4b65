"""Recommendations with hand-computed shares, and needs that cannot be met."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Ran
from made_up_runs import DENSE, MadeUpRun

from prunelab.analysis.claims.evidence import MeasuredCut, over_seeds
from prunelab.analysis.recommend import Candidate, Need, frontier, recommend
from prunelab.analysis.recommend.command import prune_command
from prunelab.cli.recommend import recommendation_lines
from prunelab.errors import InvalidRequest
from prunelab.pruning.plan_summary import PlannedCut
from prunelab.reports.tables import main_table
from prunelab.stats.paired_tests import Comparison
from prunelab.studies.config import write_config
from prunelab.studies.run import Measured, Run
from prunelab.studies.store import CellId, ResultsStore

Command = Callable[..., Ran]
DEPTH10, DEPTH20, WIDTH10, WIDTH20 = ("shortgpt", 0.1), ("shortgpt", 0.2), ("flap", 0.1), ("flap", 0.2)


def made(folder: Path, **fields: object) -> MadeUpRun:
    """BoolQ (chance 0.5) keeps 1, 0.9 and 0.75 of its 0.4 above chance; GSM8K 0.9, 0.5, ... of 0.5; speeds by hand."""
    run = MadeUpRun(folder, fields=fields)
    boolq = {DENSE: 900, DEPTH10: 860, WIDTH10: 880, DEPTH20: 800, WIDTH20: 700}
    gsm8k = {DENSE: 500, DEPTH10: 450, WIDTH10: 440, DEPTH20: 250, WIDTH20: 350}
    speeds = {DENSE: 50.0, DEPTH10: 55.0, WIDTH10: 50.5, DEPTH20: 62.5, WIDTH20: 51.0}
    for cut, right in boolq.items():
        run.questions("m", cut, "boolq", right)
        run.questions("m", cut, "gsm8k", gsm8k[cut], shots=5)
        run.speed("m", cut, speeds[cut], weight_bytes=1e9 * (1 - cut[1]))
    return run


def cut_of(one: Candidate) -> tuple[str, float]:
    return one.cut.method, one.cut.ratio


def test_the_retained_shares(tmp_path: Path) -> None:
    """Of the cuts of 20 % none keeps 80 %; of those of 10 % width keeps 0.95 and 0.88, depth 0.9 and 0.9."""
    found = recommend(made(tmp_path).run(), Need(keep=0.8))
    assert cut_of(found.choice) == WIDTH10
    assert found.choice.retained == pytest.approx({"boolq": 0.38 / 0.4, "gsm8k": 0.88})
    assert found.choice.quality == pytest.approx(0.915)
    assert found.choice.speedup == pytest.approx(1.01)
    assert found.choice.memory == pytest.approx(0.9e9)
    assert found.memory_is == "weights only"
    assert found.why.startswith(
        "the largest cut that retains 80% of the quality, and the one with the highest quality of 2"
    )
    assert [cut_of(one) for one in found.frontier] == [WIDTH10, DEPTH10]


def test_weights_turn_the_choice(tmp_path: Path) -> None:
    """Width keeps 0.95 and 0.88, depth 0.9 and 0.9: even, width is ahead; with GSM8K weighted 9 to 1, depth is."""
    run = made(tmp_path).run()
    even = recommend(run, Need(keep=0.8))
    weighted = recommend(run, Need(keep=0.8, weights={"gsm8k": 9}))
    assert [cut_of(one.choice) for one in (even, weighted)] == [WIDTH10, DEPTH10]
    assert [one.choice.quality for one in (even, weighted)] == pytest.approx([0.915, 0.9])
    other = next(one for one, _ in weighted.runners_up if cut_of(one) == WIDTH10)
    assert other.quality == pytest.approx(0.1 * 0.95 + 0.9 * 0.88)


def test_perplexity_counts_as_dense_over_pruned(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    run.windows("m", DENSE, 2.0)
    run.windows("m", WIDTH10, 2.0 + math.log(1.25))
    found = recommend(run.run(), Need(keep=0.75))
    assert found.choice.retained == pytest.approx({"wikitext2": 0.8})
    assert [d.measurement.benchmark for d in found.choice.fell] == ["wikitext2"]
    assert found.choice.speedup is None


def test_below_chance_nothing_is_kept_and_a_dense_model_at_chance_says_nothing(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for cut, boolq, mmlu in ((DENSE, 900, 250), (WIDTH10, 450, 260)):
        run.questions("m", cut, "boolq", boolq)
        run.questions("m", cut, "mmlu", mmlu)
    found = recommend(run.run(), Need(keep=0.5))
    assert found.choice.retained == {"boolq": 0.0}
    assert found.left_out == ("mmlu: the dense model is at chance",)
    with pytest.raises(InvalidRequest, match="not above chance on any quality benchmark"):
        recommend(run.run(), Need(benchmarks=("mmlu",)))


def test_speed_asks_for_the_best_quality_that_is_fast_enough(tmp_path: Path) -> None:
    found = recommend(made(tmp_path).run(), Need(speedup=1.2))
    assert cut_of(found.choice) == DEPTH20
    assert "the highest quality of the cuts that meet the requirement (1)" in found.why
    assert {d.measurement.benchmark for d in found.choice.fell} == {"boolq", "gsm8k"}


def test_where_nothing_is_feasible_the_nearest_and_by_how_much(tmp_path: Path) -> None:
    """Depth at 20 % is fast enough and keeps (0.75 + 0.5) / 2, width (0.5 + 0.7) / 2; the others are far too slow."""
    found = recommend(made(tmp_path).run(), Need(keep=0.65, speedup=1.2))
    assert cut_of(found.choice) == DEPTH20
    assert not found.choice.feasible
    assert found.frontier == ()
    assert "misses quality by 2.5 points (62.5% retained, 65.0% required)" in found.why
    heavy = recommend(made(tmp_path).run(), Need(memory=0.4e9))
    assert cut_of(heavy.choice) == DEPTH20
    assert "misses memory by 0.4 GB (0.8 GB used, 0.4 GB allowed)" in heavy.why


def test_speed_is_what_was_measured_in_turn_with_the_dense_model(tmp_path: Path) -> None:
    """Its own 40 tokens a second fell into a bad minute: in turn with the dense model it was 1.3 times as fast."""
    run = made(tmp_path)
    run.measured = [
        one for one in run.measured if (one.primary.method, one.primary.benchmark) != ("flap", "throughput")
    ]
    for cut, times in ((WIDTH10, 1.3), (WIDTH20, 1.4)):
        run.add("m", cut, "throughput", {"decode_tokens_per_second": 40.0}, details={"times_as_fast": times})
    found = recommend(run.run(), Need(speedup=1.25))
    assert (cut_of(found.choice), found.choice.speedup) == (WIDTH10, 1.3)
    table = main_table(run.run().measurements, ())
    (speeds,) = [row for row in table.rows if row[:3] == ["m", "flap", "20%"]]
    assert speeds[-1] == "1.40x"


def test_a_runner_up_is_told_apart_or_not(tmp_path: Path) -> None:
    """Width's 20 more BoolQ answers and 10 fewer GSM8K ones of 1000: 0.05 / 2 - 0.02 / 2 ahead. 300 fewer are seen."""
    found = recommend(made(tmp_path).run(), Need(keep=0.8))
    doubts = {cut_of(one): doubt for one, doubt in found.runners_up}
    assert "1.5 points below the choice" in doubts[DEPTH10]
    assert "significantly lower" in doubts[DEPTH20]
    few = MadeUpRun(tmp_path / "few")
    (tmp_path / "few").mkdir()
    for cut, right in ((DENSE, 18), (DEPTH10, 17), (WIDTH10, 16)):
        few.questions("m", cut, "boolq", right, of=20)
    ((_, doubt),) = recommend(few.run(), Need(keep=0.5)).runners_up
    assert "does not differ significantly" in doubt


def test_a_test_that_cannot_tell_is_no_all_clear(tmp_path: Path) -> None:
    """Four documents can show no change, however large: four signs reach 1 in 8."""
    run = MadeUpRun(tmp_path)
    for cut, loss in ((DENSE, 1.0), (DEPTH10, 3.0)):
        run.windows("m", cut, loss, spread=0.01, of=4)
    found = run.run()
    assert [one.measurement.benchmark for one in recommend(found, Need(keep=0.1)).choice.untold] == ["wikitext2"]
    said = "\n".join(recommendation_lines(recommend(found, Need(keep=0.1))))
    assert "too few samples to tell (n = 4; 2.7 to 20.1" in said
    assert "no chosen benchmark" not in said


def test_the_frontier() -> None:
    def one(quality: float, speed: float) -> Candidate:
        return Candidate(MeasuredCut("m", "flap", 0.1, 0.1, 0), {}, quality, speed, None)

    best, fast, beaten, twin = one(0.9, 1.0), one(0.8, 1.3), one(0.8, 1.2), one(0.9, 1.0)
    assert frontier([fast, beaten, best, twin]) == [best, twin, fast]


def test_seeds_are_averaged(tmp_path: Path) -> None:
    """Above chance (0.5) the dense model has 0.4; width keeps 0.38 and 0.26 of it, depth 0.36 and 0.34.

    Width is ahead under seed 0 alone (0.95 against 0.9), and behind on average: 0.8 against 0.875. The mean of its two
    tests is 0.58 below the dense 0.9, and only one of depth's two is seen.
    """
    run = MadeUpRun(tmp_path, fields={"vary_calibration": True, "seeds": [0, 1]})
    run.questions("m", DENSE, "boolq", 900)
    run.speed("m", DENSE, 50.0)
    for cut, right, speeds in ((WIDTH10, (880, 760), (50.0, 60.0)), (DEPTH10, (860, 840), (55.0, 60.0))):
        for seed in (0, 1):
            run.questions("m", cut, "boolq", right[seed], seed=seed)
            run.speed("m", cut, speeds[seed], seed=seed)
    found = recommend(run.run(), Need(keep=0.8))
    ((other, doubt),) = found.runners_up
    assert (cut_of(found.choice), cut_of(other)) == (DEPTH10, WIDTH10)
    assert [found.choice.quality, other.quality] == pytest.approx([0.875, 0.8])
    assert [found.choice.speedup, other.speedup] == pytest.approx([1.15, 1.1])
    assert "7.5 points below the choice" in doubt
    (fell,) = found.choice.fell
    assert (fell.comparison.dense, fell.comparison.pruned) == pytest.approx((0.9, 0.85))
    assert fell.measurement.value == pytest.approx(0.85)
    assert fell.comparison.test.endswith("2 seeds")
    assert found.taken == ("results of every cut are means over seeds 0, 1",)
    assert "--seed 0" in found.command


def test_tests_of_seeds_are_as_sure_as_the_least_sure() -> None:
    one = Comparison(0.9, 0.8, -0.1, (-0.15, -0.05), 0.001, 100, "test", 0.002)
    other = replace(one, pruned=0.86, difference=-0.04, interval=(-0.1, 0.02), p=0.2, p_adjusted=0.4)
    mean = over_seeds([one, other])
    assert (mean.pruned, mean.difference, *mean.interval) == pytest.approx((0.83, -0.07, -0.125, -0.015))
    assert (mean.p, mean.p_adjusted) == (0.2, 0.4)
    assert over_seeds([one]) is one
    rose = replace(one, pruned=1.0, difference=0.1, interval=(0.05, 0.15))
    assert over_seeds([one, rose]).p_adjusted == 1.0


def test_a_seed_that_is_missing_is_said(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, fields={"vary_calibration": True, "seeds": [0, 1]})
    for name in ("boolq", "arc_easy"):
        run.questions("m", DENSE, name, 900)
        run.questions("m", WIDTH10, name, 880)
        run.questions("m", DEPTH10, name, 880)
    run.questions("m", WIDTH10, "boolq", 860, seed=1)
    found = recommend(run.run(), Need(keep=0.5))
    assert found.taken == ("results of flap 10% are means over seeds 0, 1",)
    assert "arc_easy of flap 10% seed 1" in found.not_measured
    assert "cannot be compared" in found.runners_up[0][1]


def test_shots_are_kept_apart(tmp_path: Path) -> None:
    """GSM8K's own number is 5: depth keeps 0.9 there, and 0.5 without examples; a cut without it has no quality."""
    run = MadeUpRun(tmp_path)
    for cut, few, many in ((DENSE, 200, 500), (DEPTH10, 100, 450)):
        run.questions("m", cut, "gsm8k", many, shots=5)
        run.questions("m", cut, "gsm8k", few, shots=0)
    run.questions("m", WIDTH10, "gsm8k", 190, shots=0)
    found = recommend(run.run(), Need(keep=0.8))
    assert cut_of(found.choice) == DEPTH10
    assert found.choice.retained == pytest.approx({"gsm8k": 0.9})
    assert found.taken == ("gsm8k with 5 shots counts (the standard number) of 0, 5",)
    ((other, _),) = found.runners_up
    assert (cut_of(other), other.quality) == (WIDTH10, None)
    assert "gsm8k 5-shot of flap 10%" in found.not_measured


def test_without_the_standard_shots_the_fewest_count(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for cut, few, many in ((DENSE, 200, 500), (DEPTH10, 100, 450)):
        run.questions("m", cut, "gsm8k", many, shots=8)
        run.questions("m", cut, "gsm8k", few, shots=2)
    found = recommend(run.run(), Need(keep=0.4))
    assert found.choice.retained == pytest.approx({"gsm8k": 0.5})
    assert found.taken == (
        "gsm8k with 2 shots counts (the smallest, since the standard number was not measured) of 2, 8",
    )


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.questions("m", DENSE, "arc_easy", 800)
    found = recommend(run.run(), Need(keep=0.5))
    assert not found.choice.feasible
    assert found.choice.quality is None
    assert "quality, since a benchmark is missing" in found.why
    assert "humaneval" in found.not_measured
    assert "arc_easy of flap 10%" in found.not_measured
    assert "whether arc_easy changed significantly" in found.not_measured


def test_the_command_has_the_runs_options(tmp_path: Path) -> None:
    run = made(
        tmp_path, models=[{"path": "models/my model", "name": "m", "dtype": "float32"}], device="cpu", seeds=[3],
        calibration={"corpus": "c4", "samples": 64, "sequence_length": 512},
        pruning={"protect_first": 2, "uniform": True, "compensation": "none"},
    )  # fmt: skip
    run.achieved = {DEPTH10: 0.09375}
    words = shlex.split(recommend(run.run(), Need(keep=0.8, benchmarks=("boolq",))).command)
    assert words[:3] == ["prunelab", "prune", "models/my model"]
    options = dict(zip(words[3::2], words[4::2], strict=False))
    assert options["--method"] == "flap"
    for text in (
        "--protect-first 2", "--compensation none", "--uniform", "--calibration c4 --samples 64 --sequence-length 512",
        "--seed 3", "--device cpu --dtype float32", "--out m-flap-1",
    ):  # fmt: skip
        assert text in " ".join(words)


def test_a_plan_stands_for_the_options_that_it_was_made_with(tmp_path: Path) -> None:
    pruning = {"protect_first": 2, "uniform": True, "compensation": "none"}
    run = made(tmp_path, seeds=[3, 4], pruning=pruning, vary_calibration=False).run()
    plan = PlannedCut(tmp_path / "plan.json", "f", "m", "llama", 10, 0.1, 0.1, {}, (), ())
    words = shlex.split(prune_command(run, MeasuredCut("m", "random_width", 0.1, 0.1, 4), plan))
    assert words[3:5] == ["--plan", str(tmp_path / "plan.json")]
    assert not {"--method", "--ratio", "--protect-first", "--uniform", "--compensation"} & set(words)


def test_without_a_plan_width_is_asked_for_what_depth_achieved(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, achieved={DEPTH10: 0.09375, WIDTH10: 0.0938})
    for cut, right in ((DENSE, 900), (DEPTH10, 800), (WIDTH10, 860)):
        run.questions("m", cut, "boolq", right)
    assert "--method flap --ratio 0.09375 " in recommend(run.run(), Need(keep=0.8)).command
    run.fields = {"match_depth": False}
    assert "--method flap --ratio 0.1 " in recommend(run.run(), Need(keep=0.8)).command


@pytest.mark.parametrize(
    ("need", "match"),
    [
        ({"keep": 0.0}, "give a share above 0% and up to 100%"),
        ({"keep": 2.0}, "keeping 2 of 1 is not possible"),
        ({"keep": math.nan}, "keeping nan"),
        ({"speedup": -1.0}, "speedup -1 is not possible"),
        ({"weights": {"gsm8k": 0.0}}, "weight gsm8k 0 is not possible"),
        ({"benchmarks": ("bolq",)}, "did you mean 'boolq'"),
        ({"weights": {"mmlu": 2.0}}, "no benchmark that was measured on m is called 'mmlu'"),
        ({"weights": {"gsm8k": 2.0}, "benchmarks": ("boolq",)}, "add --benchmark gsm8k"),
        ({"benchmarks": ("throughput",)}, "throughput measures speed"),
        ({"model": "n"}, "no model of this run is called 'n': known are m"),
    ],
)
def test_bad_needs(need: dict[str, object], match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=match) as error:
        recommend(made(tmp_path).run(), Need(**need))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_needs_that_the_run_cannot_answer(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    run.questions("a", DENSE, "boolq", 900)
    with pytest.raises(InvalidRequest, match="no pruned cut of a"):
        recommend(run.run(), Need())
    with pytest.raises(InvalidRequest, match="--memory requires throughput"):
        recommend(run.run(), Need(memory=1e9))
    run.questions("b", DENSE, "boolq", 900)
    with pytest.raises(InvalidRequest, match="several models: give --model with one of a, b"):
        recommend(run.run(), Need())
    with pytest.raises(InvalidRequest, match="no measurement"):
        recommend(MadeUpRun(tmp_path).run(), Need())


def written(run: Run) -> Path:
    """The run's folder as a study leaves it."""
    store, measured = ResultsStore(run.folder), []
    for one in run.measured:
        m = one.primary
        common = m.model_dump(include={"model", "method", "ratio", "achieved_ratio", "seed", "plan"})
        cell, identity = CellId(fingerprint="0", dtype="float32", **common), {"shots": m.shots}
        path = store.path(cell, m.benchmark, identity)
        records = [] if one.samples is None else one.samples.to_dict("records")
        store.write(path, cell, one.measurements, records, identity)
        measured.append(Measured(path, one.measurements))
    write_config(run.folder / "study.yaml", run.config)
    Run(run.folder, run.config, measured, run.differences).write()
    return run.folder


def refused(ran: Ran, text: str) -> None:
    assert ran.code == 2, ran
    assert len(ran.err.splitlines()) == 1, ran.err
    assert text in ran.err


def test_the_command_line(command: Command, tmp_path: Path) -> None:
    folder = written(made(tmp_path).run())
    ran = command("recommend", folder, "--keep", "80%", "--weight", "gsm8k=9", "--memory", "950MB")
    assert ran.code == 0, ran
    assert (
        "recommended: m, depth (shortgpt) at 10% (achieved 10.0%): keeps 90.0% of the quality, 1.10x the speed"
        in ran.out
    )
    assert "costs: gsm8k 5-shot exact_match: fell from 50.0 to 45.0 %" in ran.out
    assert "command: prunelab prune m --method shortgpt --ratio 0.1 --out" in ran.out
    assert "runner-up: m, width (flap) at 10%" in ran.out
    ran = command("recommend", folder, "--speedup", "9x")
    assert ran.code == 0, ran
    assert "nothing meets the requirements; nearest: m, depth (shortgpt) at 20%" in ran.out
    assert "misses speed by 7.75x (1.25x reached, 9.00x required)" in ran.out
    for options, text in (
        (["--keep", "0%"], "above 0%"), (["--keep", "200%"], "up to 100%"), (["--keep", "95"], "such as 95% or 0.95"),
        (["--keep", "much"], "is not a number"), (["--weight", "gsm8k"], "such as gsm8k=2"),
        (["--weight", "gsm8k=x"], "is not a number"), (["--memory", "12 apples"], "such as 12GB"),
        (["--benchmark", "bolq"], "did you mean 'boolq'"), (["--model", "n"], "known are m"),
        (["--weight", "mmlu=2"], "mmlu"),
    ):  # fmt: skip
        refused(command("recommend", folder, *options), text)
    refused(command("recommend", tmp_path / "gone"), "is not a finished run")


def test_the_papers_rules(command: Command) -> None:
    ran = command("recommend", "--keep", "95%")
    assert ran.code == 0, ran
    assert "depth (shortgpt) at 10%" in ran.out
    assert "nothing was measured here" in ran.out
    assert "depth (shortgpt) at 20%" in command("recommend", "--speedup", "1.1").out
    refused(command("recommend", "--memory", "1GB"), "give the folder of a study for other options")


def test_a_cut_that_is_the_same_model_as_another_is_no_choice_beside_it(tmp_path: Path) -> None:
    """What hybrid arrived at is shortgpt's cut: it is named, and neither chosen, nor counted, nor a runner-up."""
    run = made(tmp_path)
    for one in list(run.measured):
        m = one.primary
        if m.method == "shortgpt":
            run.measured.append(Measured(one.path, [m.model_copy(update={"method": "hybrid"})]))
    plans = {0.1: "a", 0.2: "b"}
    run.measured = [
        Measured(
            one.path,
            [
                m.model_copy(update={"plan": plans.get(m.ratio) if m.method != "flap" else f"w{m.ratio}"})
                for m in one.measurements
            ],
        )
        for one in run.measured
    ]
    found = recommend(run.run(), Need(keep=0.8))
    assert found.duplicates == ("hybrid at 10%, 20% is the same model as shortgpt",)
    assert "of 2 such cuts of this size" in found.why
    assert {one.cut.method for one, _ in found.runners_up} == {"shortgpt", "flap"}
    other = [
        Measured(one.path, [m.model_copy(update={"plan": f"{m.plan}{m.method}"}) for m in one.measurements])
        for one in run.measured
    ]
    run.measured = other
    found = recommend(run.run(), Need(keep=0.8))
    assert not found.duplicates
    assert "of 3 such cuts of this size" in found.why
