"""What every registered benchmark keeps to, and that lm-eval's own numbers are what the text benchmarks give."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Tiny, make_tiny
from miniature_hub import Rows, documents, write_data_set

from prunelab.errors import DataError, InvalidRequest, NonFiniteValue, UnknownName
from prunelab.evaluation.benchmarks import EvaluationSettings, Score, benchmarks, find_benchmark
from prunelab.evaluation.benchmarks.lm_eval.scores import pooled, share_error, with_groups
from prunelab.evaluation.runner import dense_cell
from prunelab.models.loading import LanguageModel
from prunelab.studies.store import measurements_of

TinyOf = Callable[[str], Tiny]
CHOICES = ("arc_easy", "arc_challenge", "boolq", "winogrande", "mmlu")


def settings_for(root: Path, **more: Any) -> EvaluationSettings:
    return EvaluationSettings(
        **{
            "datasets_root": root,
            "limit": 2,
            "repeats": 1,
            "new_tokens": 8,
            "allow_code_execution": True,
            **more,
        }
    )


@pytest.mark.parametrize("name", benchmarks)
def test_every_benchmark_keeps_the_contract(
    name: str, miniature: Path, tiny: TinyOf, request: pytest.FixtureRequest
) -> None:
    benchmark, model = benchmarks[name], tiny("idefics3" if benchmarks[name].is_multimodal else "llama").model
    if benchmark.is_multimodal:
        miniature = request.getfixturevalue("vision_hub")
    settings = settings_for(miniature)
    if name == "humaneval":
        request.getfixturevalue("can_cage")
    for source in benchmark.sources():
        assert (miniature / source.repository).is_dir(), f"add documents of {source} to tests/miniature_*.py"
    assert benchmark.name == name
    assert benchmark.title
    assert benchmark.chance is None or 0 < benchmark.chance < (100 if name == "stereoset" else 1)
    benchmark.check(settings)
    benchmark.check_model(model, settings)
    identity = benchmark.identity(settings)
    assert json.loads(json.dumps(identity)) == identity

    reported: list[tuple[int, int]] = []
    evaluation = benchmark.evaluate(model, settings, lambda done, of: reported.append((done, of)))
    assert evaluation.scores[0].metric == benchmark.primary
    assert evaluation.scores[0].group == ""
    assert all(math.isfinite(s.value) and s.n > 0 for s in evaluation.scores)
    assert all(s.standard_error is None or math.isfinite(s.standard_error) for s in evaluation.scores)
    assert reported[-1][0] == reported[-1][1], "the last report of progress says that all is done"
    rows = measurements_of(dense_cell(model), benchmark, evaluation, 0.0, {})
    assert [row.metric for row in rows if row.primary] == [benchmark.primary]
    if not benchmark.is_timing:
        ids = [sample["sample"] for sample in evaluation.samples]
        assert ids
        assert len(ids) == len(set(ids))
        again = benchmark.evaluate(model, settings)
        assert (again.scores, again.samples) == (evaluation.scores, evaluation.samples)
        assert benchmark.identity(settings_for(miniature, limit=1)) != identity
    if benchmark.shots is not None:
        assert rows[0].shots == benchmark.shots
        assert benchmark.identity(settings_for(miniature, shots=benchmark.shots + 1)) != identity


@pytest.mark.parametrize("name", CHOICES)
def test_samples_of_a_choice_add_up_to_its_score(name: str, miniature: Path, tiny: TinyOf) -> None:
    evaluation = benchmarks[name].evaluate(tiny("llama").model, settings_for(miniature, limit=None))
    samples = evaluation.samples
    assert evaluation.scores[0].value == pytest.approx(sum(s["correct"] for s in samples) / len(samples))
    assert evaluation.scores[0].n == len(samples)
    for sample in samples:
        assert sample["prediction"] == max(range(len(sample["scores"])), key=sample["scores"].__getitem__)
        assert sample["correct"] == (sample["prediction"] == sample["target"])
        assert len(sample["prompt_hash"]) == 64
    assert evaluation.conditions["chance"] == pytest.approx(sum(1 / len(s["scores"]) for s in samples) / len(samples))


def test_mmlu_weighs_every_question_alike(miniature: Path, tiny: TinyOf) -> None:
    evaluation = benchmarks["mmlu"].evaluate(tiny("llama").model, settings_for(miniature, shots=0))
    groups = [score.group for score in evaluation.scores]
    assert groups[:5] == ["", "humanities", "other", "social_sciences", "stem"]
    assert sum("/" in group for group in groups) == 57
    by_group = {score.group: score for score in evaluation.scores}
    assert by_group[""].n == 114
    stem = [sample["correct"] for sample in evaluation.samples if sample["group"].startswith("stem/")]
    assert by_group["stem"].value == pytest.approx(sum(stem) / len(stem))
    assert evaluation.samples[0]["sample"] == f"{evaluation.samples[0]['group']}/0"


def test_pooled_scores_are_lm_evals() -> None:
    from lm_eval.api.metrics import aggregate_subtask_metrics, mean_stderr, pooled_sample_stderr

    answers = [[1, 0, 0], [1, 1, 1, 0, 0, 1], [0, 1]]
    scores = [
        Score("acc", sum(a) / len(a), len(a), share_error(sum(a) / len(a), len(a)), f"{'xxy'[i]}/{i}")
        for i, a in enumerate(answers)
    ]
    assert [s.standard_error for s in scores] == pytest.approx([mean_stderr(a) for a in answers])
    sizes = [len(a) for a in answers]
    whole, x, y, *rest = with_groups({s.group: [s] for s in scores})
    assert whole.value == pytest.approx(aggregate_subtask_metrics([s.value for s in scores], sizes))
    assert whole.standard_error == pytest.approx(pooled_sample_stderr([s.standard_error for s in scores], sizes))
    assert (x.group, x.n) == ("x", 9)
    assert x.value == pytest.approx(5 / 9)
    assert (y.group, y.value, y.n) == ("y", 0.5, 2)
    assert rest == scores
    assert pooled([Score("acc", 1.0, 1), Score("acc", 0.0, 1)]).standard_error is None
    assert share_error(1.0, 1) is None


@pytest.mark.parametrize("name", ["boolq", "winogrande"])
def test_shots_from_the_scored_split_leave_the_scored_item_out(
    name: str, tmp_path: Path, tiny: TinyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = benchmarks[name].sources()[0].repository
    ((config, splits),) = documents()[repository].items()
    write_data_set(tmp_path / repository, {config: {"validation": splits["validation"][:3]}})
    prompts = prompts_of(name, tiny("llama").model, settings_for(tmp_path, shots=2, limit=None), monkeypatch)
    for animal in ("fox", "bird", "frog"):
        assert len([p for p in prompts if p.rstrip().split("\n\n")[-1].count(animal)]) > 0
    for prompt in prompts:
        *shots, asked = prompt.split("\n\n")
        assert len(shots) == 2
        mine = next(animal for animal in ("fox", "bird", "frog") if animal in asked)
        assert all(mine not in shot for shot in shots)
    with pytest.raises(InvalidRequest, match=r"split validation has 2: give --shots from 0 to 2"):
        benchmarks[name].check(settings_for(tmp_path, shots=3))


def prompts_of(
    name: str, model: LanguageModel, settings: EvaluationSettings, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What the model is given, each once."""
    from prunelab.inference.lm_eval_adapter import PrunelabLM

    prompts: list[str] = []
    for method in ("loglikelihood", "generate_until"):
        original = getattr(PrunelabLM, method)

        def spy(self: Any, requests: list[Any], disable_tqdm: bool = False, original: Any = original) -> Any:
            prompts.extend(request.args[0] for request in requests)
            return original(self, requests)

        monkeypatch.setattr(PrunelabLM, method, spy)
    benchmarks[name].evaluate(model, settings)
    monkeypatch.undo()
    return list(dict.fromkeys(prompts))


def test_where_there_is_a_train_split_shots_come_from_it(
    tmp_path: Path, tiny: TinyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = documents()["allenai/ai2_arc"]["ARC-Easy"]
    train = [{**row, "question": f"train {row['id']}?"} for row in splits["test"]]
    write_data_set(tmp_path / "allenai/ai2_arc", {"ARC-Easy": {**splits, "train": train}})
    model = tiny("llama").model
    prompts = prompts_of("arc_easy", model, settings_for(tmp_path, shots=2), monkeypatch)
    assert all(prompt.count("Question: train ") == 2 for prompt in prompts)
    conditions = benchmarks["arc_easy"].evaluate(model, settings_for(tmp_path, shots=2)).conditions
    assert conditions["shots_split"] == "train"
    assert conditions["shots_from_validation"] is False


def test_shots_from_validation_are_marked_and_drawn_by_the_seed(miniature: Path, tiny: TinyOf) -> None:
    benchmark, model = benchmarks["arc_easy"], tiny("llama").model
    found = [benchmark.evaluate(model, settings_for(miniature, shots=2, seed=seed)) for seed in (0, 0, 5)]
    hashes = [[sample["prompt_hash"] for sample in evaluation.samples] for evaluation in found]
    assert hashes[0] == hashes[1] != hashes[2]
    assert found[0].conditions["shots_from_validation"] is True
    assert found[0].conditions["shots_split"] == "validation"
    none = benchmark.evaluate(model, settings_for(miniature, shots=0)).conditions
    assert (none["shots"], none["shots_from_validation"]) == (0, False)


def test_a_prompt_longer_than_the_context_is_truncated_and_counted(tmp_path: Path, tiny: TinyOf) -> None:
    rows = list(documents()["aps/super_glue"]["boolq"]["validation"][:3])
    rows[1] = {**rows[1], "passage": "far too long " * 40}
    write_data_set(tmp_path / "aps/super_glue", {"boolq": {"validation": rows}})
    evaluation = benchmarks["boolq"].evaluate(tiny("llama").model, settings_for(tmp_path, limit=None))
    assert evaluation.conditions["truncated"] == 2  # one prompt, two answers
    assert len(evaluation.samples) == 3


def test_generation_is_fitted_to_a_small_context(miniature: Path) -> None:
    for context, tokens in ((256, 128), (300, 256)):
        model = make_tiny("llama", max_position_embeddings=context).model
        conditions = benchmarks["gsm8k"].evaluate(model, settings_for(miniature, limit=1)).conditions
        assert conditions["max_new_tokens"] == tokens
        assert conditions["truncated"] == 1


def test_a_nan_names_its_sample(tmp_path: Path) -> None:
    rows = list(documents()["allenai/ai2_arc"]["ARC-Easy"]["test"])
    rows[2] = {**rows[2], "question": "What is ~?"}
    write_data_set(tmp_path / "allenai/ai2_arc", {"ARC-Easy": {"test": rows}})
    model = make_tiny("llama").model
    token = model.tokenizer("~", add_special_tokens=False).input_ids[0]
    with torch.no_grad():
        model.model.get_input_embeddings().weight[token] = math.nan
    with pytest.raises(NonFiniteValue, match="arc_easy, document 2"):
        benchmarks["arc_easy"].evaluate(model, settings_for(tmp_path, limit=None))


def test_bad_data_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    rows = documents()["allenai/ai2_arc"]["ARC-Easy"]["test"]
    benchmark = benchmarks["arc_easy"]

    def refused(text: str, splits: Mapping[str, Rows], suffix: str = "jsonl") -> None:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        folder = root / "allenai/ai2_arc"
        write_data_set(folder, {"ARC-Easy": splits})
        if suffix == "parquet":
            pd.DataFrame(list(rows))[:0].to_parquet(folder / "ARC-Easy/test.parquet")
            readme = folder / "README.md"
            readme.write_text(readme.read_text().replace("test.jsonl", "test.parquet"))
        with pytest.raises(DataError, match=text):
            benchmark.check(settings_for(root))

    without = [{key: value for key, value in row.items() if key != "answerKey"} for row in rows]
    refused(
        r"ai2_arc \(ARC-Easy, split test\) has no column 'answerKey', only id, question, choices: fetch",
        {"test": without},
    )
    refused(r"has no split 'test', only validation", {"validation": rows})
    for suffix in ("jsonl", "parquet"):
        refused(r"ai2_arc \(ARC-Easy\).*one of its files is empty.*--benchmark arc_easy", {"test": []}, suffix)
    with pytest.raises(UnknownName, match="did you mean 'arc_easy'"):
        find_benchmark("arc_esay")
    write_data_set(tmp_path / "zero" / "allenai/ai2_arc", {"ARC-Easy": {"test": rows}})
    benchmark.check(settings_for(tmp_path / "zero", shots=0))
    with pytest.raises(InvalidRequest, match=r"no split has any: give --shots 0$"):
        benchmark.check(settings_for(tmp_path / "zero", shots=1))


def test_nothing_is_left_changed(miniature: Path, tiny: TinyOf, capfd: pytest.CaptureFixture[str]) -> None:
    import langdetect
    import lm_eval.api.task
    import lm_eval.utils
    import nltk

    def state() -> tuple[Any, ...]:
        return (
            lm_eval.api.task.tqdm, lm_eval.utils.env.from_string, langdetect.DetectorFactory.seed, list(nltk.data.path),
            random.getstate(), logging.getLogger("lm_eval").level, torch.random.get_rng_state().tolist(),
        )  # fmt: skip

    before = state()
    for name in ("arc_easy", "gsm8k", "ifeval"):
        benchmarks[name].check(settings_for(miniature))
    capfd.readouterr()
    for name in ("arc_easy", "gsm8k", "ifeval"):
        benchmarks[name].evaluate(tiny("llama").model, settings_for(miniature))
    assert state() == before
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", ""), "the terminal is left clean"


def test_declared_chance_is_that_of_the_real_data(shared: Path) -> None:
    import datasets

    for name, config in (("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")):
        rows = datasets.load_dataset(str(shared / "hub/allenai/ai2_arc"), config, split="test")
        shares = [1 / len(choices["text"]) for choices in rows["choices"]]
        assert benchmarks[name].chance == pytest.approx(sum(shares) / len(shares), abs=1e-12)
