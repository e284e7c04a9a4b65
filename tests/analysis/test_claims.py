"""Every claim on made-up runs whose verdict is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_runs import DENSE, MadeUpRun

from prunelab.analysis.claims import Judgement, Verdict, claims, judge
from prunelab.analysis.claims.base import combined
from prunelab.analysis.claims.evidence import Evidence
from prunelab.analysis.claims.trials import Effect, adjusted, difference_trial, mean_trial, normal_trial
from prunelab.studies.run import Run

S, C, I, N = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE, Verdict.NOT_MEASURED
DEPTH, WIDTH, HYBRID = "shortgpt", "flap", "hybrid"
DEPTH10, DEPTH20, DEPTH30 = ((DEPTH, ratio) for ratio in (0.1, 0.2, 0.3))
WIDTH10, WIDTH20, WIDTH30 = ((WIDTH, ratio) for ratio in (0.1, 0.2, 0.3))
Scene = Callable[[MadeUpRun], None]


def judged(run: Run, claim: str) -> Judgement:
    return next(one for one in judge(run) if one.claim == claim)


def parts(judgement: Judgement) -> set[object]:
    return {row["part"] for row in judgement.evidence}


# C1: n = 1000, so that 70 more wrong answers are far beyond chance and the same answers are well inside the margin
def selective(mmlu: int, arc: int, of: int = 1000) -> Scene:
    def scene(run: MadeUpRun) -> None:
        for cut in (DENSE, DEPTH10, WIDTH10):
            dense = cut == DENSE
            run.questions("m", cut, "mmlu", of * 7 // 10 if dense else mmlu, of)
            run.questions("m", cut, "arc_easy", of * 8 // 10 if dense else arc, of)

    return scene


# C2
def programs(passed: int, syntax_errors: int, repeats: int, of: int = 100) -> Scene:
    def scene(run: MadeUpRun) -> None:
        run.programs("m", DENSE, of // 2, of)
        for method in (DEPTH, WIDTH):
            run.programs("m", (method, 0.1), passed, of)
            run.programs("m", (method, 0.2), min(passed, 5), of, syntax_errors, repeats)

    return scene


# C3: ARC-Easy loses 1 of 55 points above chance; IFEval's dense model follows half
def instructions(depth: int, width: int, depth30: int, width30: int, of: int = 400) -> Scene:
    def scene(run: MadeUpRun) -> None:
        run.questions("m", DENSE, "arc_easy", 800)
        run.instructions("m", DENSE, of // 2, of)
        for cut, followed in ((DEPTH10, depth), (WIDTH10, width), (DEPTH30, depth30), (WIDTH30, width30)):
            run.questions("m", cut, "arc_easy", 790)
            run.instructions("m", cut, followed, of)

    return scene


# C4
def accuracies(depth: int, width: int, mixed: tuple[int, int], of: int = 1000) -> Scene:
    def scene(run: MadeUpRun) -> None:
        for name in ("arc_easy", "arc_challenge", "boolq"):
            run.questions("m", DEPTH10, name, depth, of)
            run.questions("m", WIDTH10, name, width, of)
        for name, first, second in (("mmlu", depth, mixed[0]), ("gsm8k", depth, mixed[1])):
            run.questions("m", DEPTH10, name, first, of)
            run.questions("m", WIDTH10, name, second, of)

    return scene


# C5 and C11: two models, what each keeps of 800 of 1000 right answers
def two_models(first: str, second: str, kept: tuple[int, int], of: int = 1000, gsm8k: int | None = None) -> Scene:
    def scene(run: MadeUpRun) -> None:
        for model, right in zip((first, second), kept, strict=True):
            for name in ("arc_easy", "mmlu"):
                run.questions(model, DENSE, name, of * 8 // 10, of)
                run.questions(model, WIDTH20, name, right, of)
            if gsm8k is not None and model == first:
                run.questions(model, DENSE, "gsm8k", of // 2, of)
                run.questions(model, WIDTH20, "gsm8k", gsm8k, of)

    return scene


# C6: mean losses by ratio
def perplexities(depth: tuple[float, float], width: tuple[float, float], spread: float = 0.01) -> Scene:
    def scene(run: MadeUpRun) -> None:
        for method, losses in ((DEPTH, depth), (WIDTH, width)):
            for ratio, loss in zip((0.1, 0.3), losses, strict=True):
                run.windows("m", (method, ratio), loss, spread)

    return scene


# C7: 0.3 removed could give 1 / 0.7 = 1.43, half of the gain is 1.21
def speeds(depth: float, width: float) -> Scene:
    def scene(run: MadeUpRun) -> None:
        for cut, speed in ((DENSE, 100.0), (DEPTH30, depth), (WIDTH30, width)):
            run.speed("m", cut, speed)

    return scene


# C8
def biases(stereotyped: tuple[int, int, int, int], meaningful: int, terms: int = 200) -> Scene:
    def scene(run: MadeUpRun) -> None:
        share = terms // 100
        run.stereotypes("m", DENSE, [60 * share, 60 * share, 90 * share, 60 * share], [90 * share] * 4, terms)
        run.stereotypes("m", DEPTH10, [one * share for one in stereotyped], [meaningful * share] * 4, terms)

    return scene


# C9
def seeing(depth: tuple[int, int, int], width: tuple[int, int, int], of: int = 1000) -> Scene:
    def scene(run: MadeUpRun) -> None:
        dense = (of * 87 // 100, of * 6 // 10, of * 43 // 100)
        for cut, rights in ((DENSE, dense), (DEPTH20, depth), (WIDTH20, width)):
            for name, right in zip(("pope", "textvqa", "mmmu"), rights, strict=True):
                run.questions("v", cut, name, right, of)

    return scene


# C10
def guided(gsm8k: tuple[int, int], speed: tuple[float, float], losses: tuple[float, float, float], of: int) -> Scene:
    def scene(run: MadeUpRun) -> None:
        run.speed("m", DENSE, 100.0)
        for index, method in enumerate((DEPTH, WIDTH)):
            run.questions("m", (method, 0.2), "gsm8k", gsm8k[index], of)
            run.speed("m", (method, 0.2), speed[index])
        for method, loss in zip((DEPTH, WIDTH, HYBRID), losses, strict=True):
            run.windows("m", (method, 0.2), loss, 0.01 if of > 100 else 3.0)

    return scene


# C12
def shots(few: int, many: int, of: int = 1000) -> Scene:
    def scene(run: MadeUpRun) -> None:
        for cut, rights in ((DENSE, (of // 2, of // 2)), (WIDTH10, (few, many))):
            for count, right in zip((0, 5), rights, strict=True):
                run.questions("m", cut, "mmlu", right, of, shots=count)

    return scene


GEMMA, LLAMA = "google/gemma-2-9b", "meta-llama/Meta-Llama-3-8B"
SMALL, LARGE = "Qwen/Qwen2-1.5B", "meta-llama/Meta-Llama-3-8B"


@pytest.mark.parametrize(
    ("claim", "verdict", "against", "scene"),
    [
        ("C1", S, "", selective(mmlu=630, arc=800)),
        ("C1", C, "common sense hardly changes", selective(mmlu=630, arc=500)),
        ("C1", C, "other benchmarks fall", selective(mmlu=700, arc=800)),
        ("C1", I, "", selective(mmlu=13, arc=16, of=20)),
        ("C2", S, "", programs(passed=20, syntax_errors=40, repeats=30)),
        ("C2", C, "pass@1 under depth", programs(passed=70, syntax_errors=40, repeats=30)),
        ("C2", I, "", programs(passed=4, syntax_errors=0, repeats=0, of=10)),
        ("C3", S, "", instructions(depth=150, width=100, depth30=40, width30=40)),
        ("C3", C, "width falls faster at low ratios", instructions(depth=100, width=150, depth30=40, width30=40)),
        ("C3", C, "the two converge at high ratios", instructions(depth=150, width=100, depth30=100, width30=20)),
        ("C3", I, "", instructions(depth=6, width=4, depth30=5, width30=3, of=20)),
        ("C4", S, "", accuracies(depth=700, width=600, mixed=(600, 780))),
        ("C4", C, "depth ahead on boolq", accuracies(depth=600, width=700, mixed=(550, 650))),
        ("C4", C, "MMLU and GSM8K mixed", accuracies(depth=700, width=600, mixed=(600, 600))),
        ("C4", I, "", accuracies(depth=14, width=12, mixed=(12, 16), of=20)),
        ("C5", S, "", two_models(GEMMA, LLAMA, (400, 700))),
        ("C5", C, "compared with meta-llama/Meta-Llama-3-8B", two_models(GEMMA, LLAMA, (700, 400))),
        ("C5", I, "", two_models(GEMMA, LLAMA, (10, 11), of=20)),
        ("C6", S, "", perplexities(depth=(2.5, 6.0), width=(2.3, 2.8))),
        ("C6", C, "depth is worse", perplexities(depth=(2.3, 2.8), width=(2.5, 6.0))),
        ("C6", C, "orders of magnitude", perplexities(depth=(2.5, 3.1), width=(2.3, 2.8))),
        ("C6", I, "", perplexities(depth=(2.5, 6.0), width=(2.3, 2.8), spread=20.0)),
        ("C7", S, "", speeds(depth=140, width=102)),
        ("C7", C, "depth markedly faster", speeds(depth=105, width=102)),
        ("C7", C, "width hardly faster", speeds(depth=140, width=139)),
        ("C7", I, "", speeds(depth=122, width=102)),
        ("C8", S, "", biases((70, 60, 80, 60), meaningful=90)),
        ("C8", C, "single domains can improve", biases((90, 90, 97, 90), meaningful=90)),
        ("C9", S, "", seeing(depth=(800, 300, 400), width=(520, 400, 200))),
        ("C9", C, "depth better overall", seeing(depth=(520, 300, 200), width=(800, 400, 400))),
        ("C9", I, "", seeing(depth=(17, 12, 8), width=(13, 11, 7), of=20)),
        ("C10", S, "", guided((400, 300), (123, 102), (3.2, 2.6, 2.9), 1000)),
        ("C10", C, "depth for reasoning", guided((300, 400), (123, 102), (3.2, 2.6, 2.9), 1000)),
        ("C10", C, "hybrid in between", guided((400, 300), (123, 102), (3.2, 2.6, 2.2), 1000)),
        ("C10", C, "depth for speed", guided((400, 300), (95, 102), (3.2, 2.6, 2.9), 1000)),
        ("C10", I, "", guided((8, 6), (103, 102), (3.2, 2.6, 2.9), 20)),
        ("C11", S, "", two_models(SMALL, LARGE, (500, 780), gsm8k=50)),
        ("C11", C, "GSM8K first", two_models(SMALL, LARGE, (500, 780), gsm8k=490)),
        ("C11", C, "more than the large ones", two_models(SMALL, LARGE, (700, 300), gsm8k=50)),
        ("C11", I, "", two_models(SMALL, LARGE, (14, 15), of=20, gsm8k=8)),
        ("C12", S, "", shots(few=300, many=400)),
        ("C12", C, "more shots", shots(few=400, many=400)),
        ("C12", I, "", shots(few=8, many=10, of=20)),
    ],
)
def test_verdicts(claim: str, verdict: Verdict, against: str, scene: Scene, tmp_path: Path) -> None:
    made = MadeUpRun(tmp_path)
    scene(made)
    found = judged(made.run(), claim)
    assert found.verdict is verdict, found.finding
    assert (
        f"{against}: contradicted".lower() in found.finding.lower() if against else "contradicted" not in found.finding
    )
    assert "not measured" not in found.finding.lower(), "a scene holds all parts"
    assert found.evidence
    assert all(isinstance(value, str | float) for row in found.evidence for value in row.values())


def test_c8_is_open_with_few_terms(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for cut, race in ((DENSE, 6), (DEPTH10, 4)):
        run.stereotypes("m", cut, [4, 4, race, 4], [7, 7, 7, 7], terms=8)
    assert judged(run.run(), "C8").verdict is I


def test_an_icat_that_stays_because_the_model_collapsed_is_no_support(tmp_path: Path) -> None:
    """LMS 100 and SS 75 give an ICAT of 50, and so do the 50 and 50 of a coin."""
    run = MadeUpRun(tmp_path)
    run.stereotypes("m", DENSE, [300] * 4, [400] * 4, terms=400)
    run.stereotypes("m", DEPTH10, [200] * 4, [200] * 4, terms=400)
    found = judged(run.run(), "C8")
    overall = next(row for row in found.evidence if row["part"] == "overall ICAT stays")
    assert (overall["dense"], overall["pruned"]) == pytest.approx((50, 50))
    assert (overall["dense LMS"], overall["pruned LMS"], overall["dense SS"]) == pytest.approx((100, 50, 75))
    assert overall["verdict"] == "inconclusive"
    assert found.verdict is I


def test_nothing_is_measured_in_an_empty_run(tmp_path: Path) -> None:
    found = judge(MadeUpRun(tmp_path).run())
    assert [one.claim for one in found] == [f"C{number}" for number in range(1, 13)]
    assert {one.verdict for one in found} == {N}
    assert not any(one.evidence for one in found)
    assert "requires humaneval" in found[1].finding


@pytest.mark.parametrize("claim", [f"C{number}" for number in range(1, 13)])
def test_what_only_the_dense_model_has_is_not_measured(claim: str, tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for model in (GEMMA, LLAMA):
        for name in ("arc_easy", "mmlu", "gsm8k", "pope", "textvqa", "mmmu"):
            run.questions(model, DENSE, name, 800)
        run.programs(model, DENSE, 50)
        run.instructions(model, DENSE, 200)
        run.windows(model, DENSE, 2.0)
        run.speed(model, DENSE, 100)
        run.stereotypes(model, DENSE, [5] * 4, [9] * 4, terms=10)
    assert judged(run.run(), claim).verdict is N


def test_a_cut_of_another_size_is_not_compared(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, achieved={DEPTH10: 0.125, WIDTH10: 0.1})
    accuracies(depth=700, width=600, mixed=(600, 780))(run)
    assert judged(run.run(), "C4").verdict is N
    near = MadeUpRun(tmp_path, achieved={DEPTH10: 0.11, WIDTH10: 0.1})
    accuracies(depth=700, width=600, mixed=(600, 780))(near)
    assert judged(near.run(), "C4").verdict is S


def test_baselines_are_not_judged(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    run.questions("m", ("random_depth", 0.1), "arc_easy", 700)
    run.questions("m", ("random_width", 0.1), "arc_easy", 600)
    assert judged(run.run(), "C4").verdict is N
    evidence = Evidence(run.run(), judged=("random_depth", "random_width"))
    assert claims["C4"].judge(evidence).verdict is S


def test_one_family_or_one_size_is_not_enough(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    two_models("gemma-2-2b", "gemma-2-2b-it", (400, 700), gsm8k=50)(run)
    for claim in ("C5", "C11"):
        assert judged(run.run(), claim).verdict is N


def test_a_dense_model_at_chance_has_nothing_to_lose(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for cut in (DENSE, DEPTH10, WIDTH10):
        run.questions("m", cut, "mmlu", 255)
        run.questions("m", cut, "arc_easy", 240)
    assert judged(run.run(), "C1").verdict is N


def test_a_part_is_named_and_so_is_what_is_missing(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    run.windows("m", DEPTH10, 2.5)
    run.windows("m", WIDTH10, 2.3)
    found = judged(run.run(), "C6")
    assert found.verdict is S
    assert found.finding.startswith("Depth is worse: supported (significant in 1 of 1, in the opposite direction in 0")
    assert "m, 10.0%, wikitext2: depth 12.2, width 9.97" in found.finding
    assert (
        "Not measured: the gap widens (requires wikitext2 on matched depth and width cuts at two ratios)"
        in found.finding
    )
    assert parts(found) == {"depth is worse"}


def test_a_benchmark_that_is_not_known_here_does_no_harm(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for cut, right in ((DENSE, 800), (DEPTH10, 700), (WIDTH10, 600)):
        run.questions("m", cut, "a_benchmark_of_tomorrow", right)
    assert {one.verdict for one in judge(run.run())} == {N}


def test_the_lost_share(tmp_path: Path) -> None:
    """From 800 to 690 of 1000, guessing giving 250.16: 110 / 549.84 is lost."""
    run = MadeUpRun(tmp_path)
    run.questions("m", DENSE, "arc_easy", 800)
    run.questions("m", WIDTH10, "arc_easy", 690)
    evidence = Evidence(run.run())
    (loss,) = evidence.losses(evidence.cuts(), ["arc_easy"])
    assert loss.effect == pytest.approx(0.110 / (0.8 - 0.25016133557800224))
    assert loss.low < loss.effect < loss.high
    assert loss.significant


def test_the_mean_over_seeds_and_the_default_shots_are_looked_at(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path)
    for count, right in ((0, 100), (5, 300)):
        run.questions("m", WIDTH10, "gsm8k", right, shots=count)
        run.questions("m", WIDTH10, "gsm8k", right + 1, shots=count, seed=1)
    evidence = Evidence(run.run())
    (cut,) = evidence.cuts()
    assert cut.seed == 0
    figure = evidence.figure(cut, "gsm8k")
    assert figure is not None
    assert figure.shots == 5
    assert figure.value == pytest.approx(0.3005)
    measured = evidence.measured(cut, "gsm8k")
    assert measured is not None
    assert (measured.primary.seed, measured.primary.value) == (0, 0.3)
    assert set(evidence.by_shots(cut, "gsm8k")) == {0, 5}


def test_the_statistics_of_trials() -> None:
    one, two = Effect({}, 3.0, 3.0 - 1.96, 3.0 + 1.96, 0.01), Effect({}, 1.0, 1.0 - 1.96, 1.0 + 1.96, 0.3)
    assert one.error == pytest.approx(1, abs=1e-4)
    mean = mean_trial({}, [one, two])
    assert mean.effect == 2
    assert mean.error == pytest.approx(2**0.5 / 2, abs=1e-4)
    assert mean.p == pytest.approx(0.004678, abs=1e-5)  # z = 2 * sqrt(2)
    assert difference_trial({}, one, two).p == pytest.approx(0.1573, abs=1e-4)  # z = sqrt(2)
    assert [t.p for t in adjusted([one, two])] == pytest.approx([0.02, 0.3])
    assert one.reversed().low == pytest.approx(-4.96)
    assert normal_trial({}, 1.0, float("inf")).p == 1
    assert (normal_trial({}, 0.0, 0.0).p, normal_trial({}, 1.0, 0.0).p) == (1, 0)


def test_one_contradicted_part_decides_and_one_open_part_holds_back() -> None:
    assert combined([]) is combined([N, N]) is N
    assert combined([S, N]) is S
    assert combined([S, I]) is I
    assert combined([S, I, C]) is C
