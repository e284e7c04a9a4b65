"""Rotary frequencies that depend on a text's length: each text gets those that it has alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import byte_tokenizer, tiny_calibration, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from prunelab.calibration import calibrate
from prunelab.calibration.streaming import calibrate_streaming
from prunelab.errors import InvalidRequest
from prunelab.inference import Prompt, Sampler, SamplingSettings, Scorer, ScoringRequest
from prunelab.inference.loglikelihood import SharedPrefixScorer
from prunelab.inference.losses import token_losses
from prunelab.inference.shared_blocks import SharedPrefixModels
from prunelab.models.families import decoder_of
from prunelab.models.loading import LanguageModel, load_model
from prunelab.models.rotary import RotaryLengths
from prunelab.models.streaming.model import StreamedModel, open_streamed

LIMIT = 24
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": LIMIT,
    "short_factor": [1.0, 1.5], "long_factor": [4.0, 9.0],
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 8.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope llama": ("llama", {"rope_parameters": LONGROPE}),
    "longrope qwen2": ("qwen2_window", {"rope_parameters": LONGROPE}),
    "dynamic llama": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": LIMIT}),
    "dynamic gemma2": ("gemma2", {"rope_parameters": DYNAMIC, "max_position_embeddings": LIMIT}),
}


def model_of(name: str, seed: int = 0) -> PreTrainedModel:
    variant, changes = MODELS[name]
    return tiny_model(variant, seed, **changes)


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    return {name: model_of(name) for name in MODELS}


@torch.no_grad()
def alone(name: str, tokens: list[int], scored: int) -> float:
    """What transformers gives a text that a fresh model sees before all others."""
    logits = model_of(name)(input_ids=torch.tensor([tokens[:-1]]), use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logits[i - 1, tokens[i]]) for i in range(len(tokens) - scored, len(tokens)))


def ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_texts_on_both_sides_of_the_limit(name: str, models: dict[str, PreTrainedModel]) -> None:
    shared = ids(18)
    lengths = (2, 2, 5, 6, 7, 20, 40)  # inputs of 21 to 60 tokens
    requests = [ScoringRequest(shared + ids(n, n + i), ids(3, i), f"{n}") for i, n in enumerate(lengths)]
    scores = Scorer(models[name], max_length=100).score(requests)
    for request, score in zip(requests, scores, strict=True):
        right = alone(name, [*request.context, *request.continuation], 3)
        assert score.log_probability == pytest.approx(right, abs=2e-4)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(MODELS)), lengths=st.lists(st.integers(2, 40), min_size=2, max_size=5))
def test_any_lengths_together(name: str, lengths: list[int], models: dict[str, PreTrainedModel]) -> None:
    requests = [ScoringRequest(ids(n), ids(1, n), f"{n}") for n in lengths]
    for request, score in zip(requests, Scorer(models[name], max_length=64).score(requests), strict=True):
        right = alone(name, [*request.context, *request.continuation], 1)
        assert score.log_probability == pytest.approx(right, abs=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_models_together(name: str) -> None:
    one, two = model_of(name), model_of(name)
    requests = [ScoringRequest(ids(n), ids(2, n), f"{n}") for n in (10, 23, 24, 40)]
    both = SharedPrefixScorer(SharedPrefixModels([one, two]), max_length=64).score_each(requests)
    expected = Scorer(model_of(name), max_length=64).score(requests)
    assert both[0] == both[1] == expected


@pytest.mark.parametrize("name", MODELS)
def test_windows_of_a_perplexity(name: str, models: dict[str, PreTrainedModel]) -> None:
    model = LanguageModel(name, models[name], byte_tokenizer())
    for length in (50, 20, LIMIT, LIMIT + 1, 12):  # a long one first: `dynamic` keeps what it was given
        tokens = ids(length)
        losses = token_losses(model, torch.tensor([tokens]))[0]
        with torch.no_grad():
            logits = model_of(name)(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
        right = -logits[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        assert losses == pytest.approx(right, abs=2e-4)


@pytest.mark.parametrize("name", ["longrope llama", "longrope qwen2"])
def test_completions_on_both_sides_and_across(name: str, models: dict[str, PreTrainedModel]) -> None:
    sampler = Sampler(models[name], byte_tokenizer(), max_length=100, eos_token_ids=())
    prompts = [Prompt(ids(n, n), f"{n}") for n in (6, 40, 12, 30)]
    written = sampler.generate(prompts, SamplingSettings(max_new_tokens=8))
    fresh, tokenizer = model_of(name), byte_tokenizer()
    for prompt, [completion] in zip(prompts, written, strict=True):
        tokens = list(prompt.ids)
        for _ in range(8):
            with torch.no_grad():
                tokens.append(int(fresh(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        assert whole.endswith(completion.text)
        assert completion.tokens == 8
    before = sampler.statistics.forwards
    with pytest.raises(InvalidRequest, match=f"frequencies change at {LIMIT} tokens"):
        sampler.generate([*prompts, Prompt(ids(20), "across")], SamplingSettings(max_new_tokens=8))
    assert sampler.statistics.forwards == before


@pytest.mark.parametrize("length", [20, 40])
def test_calibration_streamed_and_in_memory(length: int, tmp_path: Path) -> None:
    model_of("longrope llama").save_pretrained(tmp_path / "m")
    byte_tokenizer().save_pretrained(tmp_path / "m")
    calibration = tiny_calibration(tokens=length)
    whole, streamed = (read(str(tmp_path / "m"), dtype="float32") for read in (load_model, open_streamed))
    expected = calibrate(whole.decoder, calibration)
    assert isinstance(streamed, StreamedModel)
    found = calibrate_streaming(streamed.decoder, calibration, tmp_path / "work", "k")
    assert torch.equal(found.cosine_sum, expected.cosine_sum)
    other = calibrate(decoder_of(tiny_model("llama")), calibration)
    assert not torch.equal(other.cosine_sum, expected.cosine_sum)


def test_frequencies_are_put_back(models: dict[str, PreTrainedModel]) -> None:
    for name, model in models.items():
        rotary = RotaryLengths([model])
        with rotary.fixed(rotary.key(50)):
            pass
        assert RotaryLengths([model]).limit == LIMIT, name
    assert RotaryLengths([tiny_model("llama")]).limit is None


def test_padded_pairs_are_refused_across_the_limit(models: dict[str, PreTrainedModel]) -> None:
    rotary = RotaryLengths([models["longrope llama"]])
    rotary.require_one_class("m", LIMIT, "texts share batches")
    with pytest.raises(InvalidRequest, match=r"change beyond 24 tokens, and texts share batches: set"):
        rotary.require_one_class("m", LIMIT + 1, "texts share batches")
