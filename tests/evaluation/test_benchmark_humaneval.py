"""HumanEval: what is generated, what is run of it, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Ran, Tiny, make_tiny
from miniature_hub import documents, write_data_set

from prunelab.errors import DataError, InvalidRequest, MissingRequirement
from prunelab.evaluation.benchmarks import Evaluation, EvaluationSettings, benchmarks, humaneval
from prunelab.evaluation.benchmarks.humaneval import execute, program_of
from prunelab.evaluation.metrics.pass_at_k import pass_at_k
from prunelab.evaluation.metrics.repetition import repeats_itself
from prunelab.evaluation.sandbox import Limits, Sandbox
from prunelab.inference import Completion, Prompt, SamplingSettings
from prunelab.models.loading import LanguageModel, load_model

TinyOf = Callable[[str], Tiny]
REPOSITORY = "openai/openai_humaneval"
benchmark = benchmarks["humaneval"]
PROBLEMS = documents()[REPOSITORY]["openai_humaneval"]["test"]
SOLUTIONS = {problem["task_id"]: problem["canonical_solution"] for problem in PROBLEMS}
EQUAL = "    class Equal:\n        __eq__ = __ne__ = lambda *_: True\n    return Equal()\n"
FORGED = """
    frame = sys._getframe()
    while frame:
        if "tell" in frame.f_locals:
            frame.f_locals["tell"]("passed", "")
        frame = frame.f_back
    os._exit(0)
import os, sys
"""
WRONG, BROKEN, ENDLESS = "    return None\n", "    return (\n", "    while True:\n        pass\n"


def settings_for(root: Path, **more: Any) -> EvaluationSettings:
    return EvaluationSettings(**{"datasets_root": root, "allow_code_execution": True, **more})


def values(evaluation: Evaluation) -> dict[str, float]:
    return {score.metric: score.value for score in evaluation.scores}


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, int], str]], None]:
    """Let every model write what a function of the problem and the completion's number says."""

    def use(text: Callable[[str, int], str]) -> None:
        class Parrot:
            eos_token_ids = frozenset({257})
            batch_tokens = 1
            shrunk_from = None

            def __init__(self, *_: Any, **__: Any) -> None:
                pass

            def stream(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> Iterator[Completion]:
                for prompt in reversed(prompts):
                    for number in reversed(prompt.completions):
                        written = text(prompt.document.removeprefix("humaneval, "), number)
                        yield Completion(prompt.document, number, written, len(written), "stop")

        monkeypatch.setattr("prunelab.evaluation.benchmarks.generation.Sampler", Parrot)

    return use


@pytest.mark.usefixtures("can_cage")
def test_solutions_pass_and_others_do_not(miniature: Path, tiny: TinyOf, says: Any) -> None:
    model, settings = tiny("llama").model, settings_for(miniature)
    says(lambda problem, _: SOLUTIONS[problem])
    right = benchmark.evaluate(model, settings)
    assert values(right) == {"pass@1": 1, "pass@5": 1, "tampered": 0, "syntax_error": 0, "timed_out": 0, "repeats": 0}
    assert [score.n for score in right.scores] == [4] * 6
    assert [sample["sample"] for sample in right.samples[:6]] == [
        *(f"HumanEval/0/{i}" for i in range(5)),
        "HumanEval/1/0",
    ]
    says(lambda *_: WRONG)
    wrong = benchmark.evaluate(model, settings)
    assert values(wrong) == {"pass@1": 0, "pass@5": 0, "tampered": 0, "syntax_error": 0, "timed_out": 0, "repeats": 0}
    assert wrong.samples[0]["verdict"] == "failed"
    assert wrong.samples[0]["detail"].startswith("AssertionError")


@pytest.mark.usefixtures("can_cage")
def test_figures_are_averages_over_problems(
    miniature: Path, tiny: TinyOf, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark.__dict__, "sandbox", Sandbox(Limits(cpu_seconds=1)))
    texts = {
        "HumanEval/0": [SOLUTIONS["HumanEval/0"]] * 2 + [WRONG] * 3,
        "HumanEval/1": [BROKEN] * 4 + [ENDLESS],
        "HumanEval/2": [SOLUTIONS["HumanEval/2"]] + ["    x = [1, 1, 1]\n" * 6] * 4,
        "HumanEval/3": [SOLUTIONS["HumanEval/3"]] * 5,
    }
    says(lambda problem, number: texts[problem][number])
    evaluation = benchmark.evaluate(tiny("llama").model, settings_for(miniature))
    found = values(evaluation)
    assert found["pass@1"] == pytest.approx((2 / 5 + 0 + 1 / 5 + 1) / 4)
    assert found["pass@5"] == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert found["syntax_error"] == pytest.approx(4 / 20)
    assert found["timed_out"] == pytest.approx(1 / 20)
    assert found["repeats"] == pytest.approx(4 / 20)
    shares = [pass_at_k(5, c, 1) for c in (2, 0, 1, 5)]
    assert evaluation.scores[0].standard_error == pytest.approx(pd.Series(shares).sem())
    assert evaluation.conditions["temperature"] == 0.8
    assert evaluation.conditions["top_p"] == 1.0

    says(lambda problem, _: SOLUTIONS[problem])
    whole = benchmark.evaluate(tiny("llama").model, settings_for(miniature))
    compared = benchmark.compare(*(pd.DataFrame(list(each.samples)) for each in (whole, evaluation)))
    assert compared is not None
    assert (compared.dense, compared.n) == (1, 4)
    assert compared.pruned == pytest.approx(found["pass@1"])


@pytest.mark.usefixtures("can_cage")
@pytest.mark.parametrize("text", [EQUAL, FORGED])
def test_tampered_programs_are_counted_beside_what_passes(miniature: Path, tiny: TinyOf, says: Any, text: str) -> None:
    says(lambda problem, number: text if number == 0 else SOLUTIONS[problem] if number == 1 else WRONG)
    evaluation = benchmark.evaluate(tiny("llama").model, settings_for(miniature, completions=4))
    assert values(evaluation)["pass@1"] == pytest.approx(1 / 4)
    assert values(evaluation)["tampered"] == pytest.approx(1 / 4), "the sum is what the reference harness gives"
    assert [sample["verdict"] for sample in evaluation.samples[:4]] == ["tampered", "passed", "failed", "failed"]
    assert [sample["correct"] for sample in evaluation.samples[:4]] == [False, True, False, False]


@pytest.mark.usefixtures("can_cage")
def test_fewer_than_five_completions_say_nothing_about_pass_at_5(miniature: Path, tiny: TinyOf, says: Any) -> None:
    says(lambda problem, _: SOLUTIONS[problem])
    evaluation = benchmark.evaluate(tiny("llama").model, settings_for(miniature, completions=2))
    assert "pass@5" not in values(evaluation)
    assert len(evaluation.samples) == 8


def test_nothing_runs_without_permission(miniature: Path, tiny: TinyOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: Any) -> None:
        raise AssertionError("it looked further than the permission")

    monkeypatch.setattr(Sandbox, "check", touched)
    monkeypatch.setattr(humaneval, "_problems", touched)
    for refused in (
        lambda: benchmark.check(EvaluationSettings(datasets_root=miniature)),
        lambda: benchmark.evaluate(tiny("llama").model, EvaluationSettings(datasets_root=miniature)),
    ):
        with pytest.raises(
            MissingRequirement, match=r"allow it with --allow-code-execution \(programs run in a sandbox"
        ):
            refused()


def test_a_machine_without_a_cage_is_found_before_the_data_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(_: Sandbox) -> None:
        raise MissingRequirement("no seccomp")

    monkeypatch.setattr(Sandbox, "check", none_here)
    with pytest.raises(MissingRequirement, match="no seccomp"):
        benchmark.check(settings_for(Path("nowhere")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"completions": 0}, "completions 0"), ({"temperature": -1.0}, "temperature -1"), ({"top_p": 0.0}, "top_p 0")],
)
def test_impossible_draws_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        benchmark.check(settings_for(Path("nowhere"), **changes))


@pytest.mark.usefixtures("can_cage")
def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "test"} for row in PROBLEMS]
    write_data_set(tmp_path / REPOSITORY, {"openai_humaneval": {"test": rows}})
    with pytest.raises(DataError, match=r"has no column 'test'.*prunelab fetch --benchmark humaneval"):
        benchmark.check(settings_for(tmp_path))


@pytest.mark.usefixtures("can_cage")
def test_stored_samples_run_again_end_the_same(miniature: Path, tiny: TinyOf, says: Any, tmp_path: Path) -> None:
    says(lambda problem, number: [SOLUTIONS[problem], WRONG, BROKEN][number])
    evaluation = benchmark.evaluate(tiny("llama").model, settings_for(miniature, completions=3))
    pd.DataFrame(list(evaluation.samples)).to_parquet(tmp_path / "samples.parquet")
    stored: list[Any] = pd.read_parquet(tmp_path / "samples.parquet").to_dict("records")
    assert execute(stored) == evaluation.samples
    assert [sample["verdict"] for sample in evaluation.samples] == ["passed", "failed", "syntax_error"] * 4


@pytest.mark.usefixtures("can_cage")
def test_a_run_killed_before_execution_does_not_generate_again(
    miniature: Path, tiny: TinyOf, says: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def write(problem: str, _: int) -> str:
        asked.append(problem)
        return str(SOLUTIONS[problem])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    says(write)
    model, settings = tiny("llama").model, settings_for(miniature, completions=2, workspace=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(humaneval, "execute", killed)
        with pytest.raises(KeyboardInterrupt):
            benchmark.evaluate(model, settings)
    assert len(asked) == 8
    evaluation = benchmark.evaluate(model, settings)
    assert len(asked) == 8
    assert values(evaluation)["pass@1"] == 1

    for other, changed in (
        (make_tiny("llama", seed=1).model, settings),
        (model, replace(settings, seed=1)),
        (model, replace(settings, temperature=0.5)),
        (model, replace(settings, limit=1)),
    ):
        before = len(asked)
        benchmark.evaluate(other, changed)
        assert len(asked) > before, "another model or another draw is generated by itself"

    for path in tmp_path.iterdir():
        path.write_text(path.read_text()[:50])
    with pytest.warns(UserWarning, match="is damaged: generating its completions again"):
        assert benchmark.evaluate(model, settings).samples == evaluation.samples


@pytest.mark.usefixtures("can_cage")
def test_what_is_generated_does_not_depend_on_the_batch(miniature: Path, tiny: TinyOf) -> None:
    model = tiny("llama").model
    found = [
        benchmark.evaluate(model, settings_for(miniature, completions=3, limit=3, tokens_a_batch=tokens))
        for tokens in (None, 200, 600)
    ]
    texts = [[sample["text"] for sample in evaluation.samples] for evaluation in found]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) == 9, "every completion has a seed of its own"
    assert [e.conditions["tokens_a_batch"] for e in found[1:]] == [200, 600]
    other = benchmark.evaluate(model, settings_for(miniature, completions=3, limit=3, seed=1))
    assert [sample["text"] for sample in other.samples] != texts[0]


@pytest.mark.usefixtures("can_cage")
def test_a_long_prompt_is_cut_on_the_left_for_the_model_alone(tmp_path: Path, tiny: TinyOf) -> None:
    rows = [{**row, "prompt": "# a comment\n" * (20 * i) + row["prompt"]} for i, row in enumerate(PROBLEMS[:2])]
    write_data_set(tmp_path / REPOSITORY, {"openai_humaneval": {"test": rows}})
    evaluation = benchmark.evaluate(tiny("llama").model, settings_for(tmp_path, completions=1))
    assert (evaluation.conditions["max_new_tokens"], evaluation.conditions["truncated"]) == (128, 1)
    assert evaluation.samples[1]["prompt"] == rows[1]["prompt"]
    assert program_of(evaluation.samples[1]).startswith(rows[1]["prompt"] + evaluation.samples[1]["text"] + "\n")
    cut = [sample for sample in evaluation.samples if sample["finish_reason"] == "length"]
    assert evaluation.conditions["cut_at_max_new_tokens"] == len(cut)


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False),
        ("    return n + 1\n", False),
        ("    x = 1\n" * 6, True),
        ("    x = 1\n" * 6 + "    x =", True),
        ("    x = 1\n" * 6 + "    return sorted(set(x))\n", False),
        ("(" * 9, True),
        ("a b c d " * 2, False),
    ],
)
def test_loops(text: str, loops: bool) -> None:
    assert repeats_itself(text) is loops


def test_the_command_asks_for_permission(
    command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path], miniature: Path, tmp_path: Path
) -> None:
    asked = ("--benchmark", "humaneval", "--datasets-root", miniature)
    ran = command("evaluate", tiny_checkpoint("llama"), *asked)
    assert ran.code == 2
    assert "--allow-code-execution" in ran.err
    ran = command("study", "--model", tiny_checkpoint("llama"), *asked, "--out", tmp_path / "run")
    assert ran.code == 2
    assert "--allow-code-execution" in ran.err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("can_cage")
def test_the_command_takes_the_draws(
    command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path], miniature: Path, tmp_path: Path
) -> None:
    draws = ("--allow-code-execution", "--completions", 2, "--temperature", 0, "--limit", 2)
    options = ("--benchmark", "humaneval", "--datasets-root", miniature, *draws)
    ran = command("evaluate", tiny_checkpoint("llama"), *options, "--out", tmp_path / "out.json")
    assert ran.code == 0, ran.err
    (first, *_) = json.loads((tmp_path / "out.json").read_text())
    assert (first["metric"], first["completions"], first["temperature"]) == ("pass@1", 2, 0)
    run = tmp_path / "run"
    grid = ("--model", tiny_checkpoint("llama"), "--method", "magnitude_depth", "--ratio", 0.25, "--out", run)
    ran = command("study", *grid, *options)
    assert ran.code == 0, ran.err
    rows = pd.read_csv(run / "results.csv")
    assert set(rows["completions"]) == {2}
    assert set(rows["temperature"]) == {0}
    assert not (run / "generations").exists(), "what was written is in the sample records"


@pytest.fixture(scope="module")
def stories(shared: Path) -> LanguageModel:
    return load_model(str(shared / "models" / "stories260K"), device="cpu")


@pytest.mark.usefixtures("can_cage")
def test_real_data(stories: LanguageModel, shared: Path) -> None:
    settings = settings_for(shared / "hub", limit=2, completions=2)
    evaluation = benchmark.evaluate(stories, settings)
    assert len(evaluation.samples) == 4
    assert evaluation.scores[0].value == 0, "it writes stories"
    assert evaluation.conditions["max_new_tokens"] == 256
    assert all(not any(stop in sample["text"] for stop in humaneval.STOPS) for sample in evaluation.samples)


def test_no_solution_of_humanevals_own_counts_as_a_loop(shared: Path) -> None:
    problems = humaneval.HUMANEVAL.load("test", shared / "hub")
    assert not any(map(repeats_itself, problems["canonical_solution"]))
