"""The oracle: HFLM on the real data, by lm-eval's own definitions, sees the same prompts and scores the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.evaluation.benchmarks.lm_eval.definition import tasks_folder
from prunelab.models.loading import LanguageModel, load_model


@pytest.fixture(scope="module")
def stories(shared: Path) -> LanguageModel:
    return load_model(str(shared / "models" / "stories260K"), device="cpu")


def oracle(
    model: LanguageModel,
    root: Path,
    path: str,
    limit: int,
    shots: int,
    softmax_dtype: str | None = None,
    **changes: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures and samples of HFLM through simple_evaluate."""
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    fields = load_yaml(tasks_folder() / path)
    fields.pop("tag", None)
    task = ConfigurableTask(config={**fields, "dataset_path": str(root / fields["dataset_path"]), **changes})
    found = simple_evaluate(
        model=HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=4, softmax_dtype=softmax_dtype),
        tasks=[task],
        num_fewshot=shots,
        limit=limit,
        bootstrap_iters=100,
        task_manager=TaskManager(include_defaults=False),
    )
    assert found is not None
    return found["results"][task.task_name], found["samples"][task.task_name]


ZERO_SHOT = {"training_split": None}
SCORED_AS_SHOTS = {"training_split": None, "test_split": "validation", "fewshot_split": "validation"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "path", "shots", "changes"),
    [
        ("arc_easy", "arc/arc_easy.yaml", 0, ZERO_SHOT),
        ("arc_challenge", "arc/arc_challenge.yaml", 2, {"training_split": None, "fewshot_split": "validation"}),
        ("boolq", "super_glue/boolq/default.yaml", 0, ZERO_SHOT),
        ("winogrande", "winogrande/default.yaml", 2, SCORED_AS_SHOTS),
    ],
)
def test_choices_are_scored_as_lm_eval_scores_them(
    name: str, path: str, shots: int, changes: dict[str, Any], stories: LanguageModel, shared: Path
) -> None:
    figures, samples = oracle(stories, shared / "hub", path, 10, shots, **changes)
    settings = EvaluationSettings(limit=10, shots=shots, datasets_root=shared / "hub")
    evaluation = benchmarks[name].evaluate(stories, settings)
    for score in evaluation.scores:
        assert score.value == figures[f"{score.metric},none"]
        assert score.standard_error == pytest.approx(figures[f"{score.metric}_stderr,none"])
    for ours, theirs in zip(evaluation.samples, samples, strict=True):
        assert ours["prompt_hash"] == theirs["prompt_hash"]
        assert ours["scores"] == pytest.approx([response[0][0] for response in theirs["resps"]], abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_mmlu_is_scored_as_lm_eval_scores_it(stories: LanguageModel, shared: Path) -> None:
    settings = EvaluationSettings(limit=1, shots=2, datasets_root=shared / "hub")
    samples = {s["group"]: s for s in benchmarks["mmlu"].evaluate(stories, settings).samples}
    assert len(samples) == 57
    for subject, group in (("anatomy", "stem/anatomy"), ("world_religions", "humanities/world_religions")):
        _, (theirs,) = oracle(stories, shared / "hub", f"mmlu/default/mmlu_{subject}.yaml", 1, 2)
        assert samples[group]["prompt_hash"] == theirs["prompt_hash"]
        assert samples[group]["scores"] == pytest.approx([r[0][0] for r in theirs["resps"]], abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_gsm8k_is_generated_as_lm_eval_generates_it(stories: LanguageModel, shared: Path) -> None:
    _, samples = oracle(stories, shared / "hub", "gsm8k/gsm8k.yaml", 3, 1)
    settings = EvaluationSettings(limit=3, shots=1, datasets_root=shared / "hub")
    evaluation = benchmarks["gsm8k"].evaluate(stories, settings)
    strict = [sample for sample in samples if sample["filter"] == "strict-match"]
    assert [s["text"] for s in evaluation.samples] == [s["resps"][0][0] for s in strict]
    assert [s["prompt_hash"] for s in evaluation.samples] == [s["prompt_hash"] for s in strict]
    assert [score.metric for score in evaluation.scores] == ["exact_match", "exact_match,flexible-extract"]
    assert evaluation.conditions["shots_split"] == "train"


@pytest.mark.filterwarnings("ignore")
def test_wikitext2_by_word_and_byte_is_lm_evals(stories: LanguageModel, shared: Path) -> None:
    figures, _ = oracle(stories, shared / "hub", "wikitext/wikitext.yaml", 1, 0, training_split=None)
    settings = EvaluationSettings(limit=1, window=64, datasets_root=shared / "hub")
    evaluation = benchmarks["wikitext2"].evaluate(stories, settings)
    _, by_word, by_byte = evaluation.scores
    assert (by_word.metric, by_byte.metric) == ("word_perplexity", "byte_perplexity")
    assert by_word.value == pytest.approx(figures["word_perplexity,none"], rel=1e-5)
    assert by_byte.value == pytest.approx(figures["byte_perplexity,none"], rel=1e-5)
    assert [sample["sample"] for sample in evaluation.samples] == ["window-0", "page-0"]
