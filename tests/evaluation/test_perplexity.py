from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Tiny, make_tiny
from torch.nn import functional as F

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.evaluation.benchmarks import EvaluationSettings, find_benchmark
from prunelab.inference.losses import token_losses
from prunelab.models.loading import load_model

TinyOf = Callable[[str], Tiny]


@pytest.mark.parametrize("variant", ["llama", "gemma2", "qwen2"])
def test_losses_are_the_models_own(variant: str, tiny: TinyOf) -> None:
    model = tiny(variant).model
    ids = torch.randint(256, (5, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.model(input_ids=ids).logits[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").reshape(5, 29)
    for tokens_a_batch in (1, 64, 4096):
        torch.testing.assert_close(token_losses(model, ids, tokens_a_batch), expected, atol=1e-5, rtol=1e-5)


def test_each_document_is_scored_by_itself_behind_its_start_token(tiny: TinyOf, tmp_path: Path) -> None:
    model = tiny("llama").model
    path = tmp_path / "t.txt"
    path.write_text("first text\n<|endoftext|>\nsecond, longer text")
    evaluation = find_benchmark(f"text:{path}").evaluate(model, EvaluationSettings())
    total, tokens = 0.0, 0
    for document in ("first text", "second, longer text"):
        ids = torch.tensor([[256, *model.tokenizer(document, add_special_tokens=False).input_ids]])
        total += token_losses(model, ids).double().sum().item()
        tokens += ids.shape[1] - 1
    scores = {score.metric: score.value for score in evaluation.scores}
    assert scores["token_perplexity"] == pytest.approx(math.exp(total / tokens))
    assert scores["word_perplexity"] == pytest.approx(math.exp(total / 5))
    assert scores["byte_perplexity"] == pytest.approx(math.exp(total / 29))
    assert [sample["sample"] for sample in evaluation.samples] == ["0", "1"]


def test_a_long_document_is_cut_into_windows(tiny: TinyOf, tmp_path: Path) -> None:
    model = tiny("llama").model
    path = tmp_path / "t.txt"
    path.write_text("abcdefghij" * 10)
    evaluation = find_benchmark(f"text:{path}").evaluate(model, EvaluationSettings(window=33))
    assert evaluation.samples[0]["tokens"] == 100
    assert evaluation.conditions["window"] == 33


def test_stories260k_knows_its_stories(shared: Path) -> None:
    model = load_model(str(shared / "models" / "stories260K"), device="cpu")
    sample = shared / "bench" / "tinystories_sample.txt"
    evaluation = find_benchmark(f"text:{sample}").evaluate(model, EvaluationSettings())
    assert math.log(evaluation.scores[0].value) == pytest.approx(1.27, abs=0.01)


def test_wikitext2_is_scored_in_windows_of_the_joined_text(shared: Path) -> None:
    from datasets import load_dataset

    model = load_model(str(shared / "models" / "stories260K"), device="cpu")
    settings = EvaluationSettings(limit=4, window=128, datasets_root=shared / "hub")
    evaluation = find_benchmark("wikitext2").evaluate(model, settings)
    lines = load_dataset(str(shared / "hub/Salesforce/wikitext"), "wikitext-2-raw-v1", split="test")["text"]
    ids = model.tokenizer("\n\n".join(lines), add_special_tokens=False).input_ids[: 4 * 128]
    windows = torch.tensor(ids).reshape(4, 128)
    with torch.no_grad():
        losses = [model.model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    token = next(score for score in evaluation.scores if score.metric == "token_perplexity")
    assert token.value == pytest.approx(math.exp(sum(losses) / 4), rel=1e-5)


def test_nan_logits_name_the_window() -> None:
    t = make_tiny("llama")
    ids = torch.randint(0, 100, (4, 10))
    ids[2, 3] = 200
    with torch.no_grad():
        t.model.model.get_input_embeddings().weight[200] = float("nan")
    with pytest.raises(NonFiniteValue, match="window 2 of 4"):
        token_losses(t.model, ids)


def test_throughput_measures_and_weighs(tiny: TinyOf) -> None:
    model = tiny("llama").model
    settings = EvaluationSettings(prompt_tokens=16, new_tokens=8, repeats=3)
    scores = {s.metric: s.value for s in find_benchmark("throughput").evaluate(model, settings).scores}
    assert scores["decode_tokens_per_second"] > 0
    assert scores["prefill_tokens_per_second"] > 0
    assert scores["parameters"] == model.model.num_parameters()
    assert scores["weight_bytes"] == 4 * model.model.num_parameters()
    assert scores["cache_bytes_per_token"] == 4 * (2 * 4 * 4) * 4  # blocks x (keys, values) x groups x head_dim x bytes
    with pytest.raises(InvalidRequest, match="exceed the context of 256"):
        find_benchmark("throughput").evaluate(model, EvaluationSettings(prompt_tokens=250, new_tokens=8))
