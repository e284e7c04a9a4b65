"""Packed scoring against one forward a request, over every family and over models pruned in width."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Tiny, tiny_model
from transformers import PreTrainedModel

from prunelab.errors import DataError, InvalidRequest, NonFiniteValue, UnsupportedModel
from prunelab.inference import LogLikelihood, Scorer, ScoringRequest
from prunelab.inference import loglikelihood as module
from prunelab.inference.batch_memory import (
    batch_size,
    cache_bytes,
    forward_bytes,
    measured_peak,
    memory_class,
    tokens_that_fit,
)
from prunelab.inference.batch_planning import Group
from prunelab.models.families import decoder_of
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.surgery import cut


def documents(seed: int = 0) -> list[ScoringRequest]:
    """Thirty tokens of shots before all; choices of one and of several tokens; some texts of their own."""
    chance = random.Random(seed)

    def some(low: int, high: int) -> list[int]:
        return [chance.randrange(250) for _ in range(chance.randint(low, high))]

    shots = some(60, 60)
    made = []
    for d in range(6):
        context = shots + some(3, 12)
        made += [ScoringRequest(context, some(1, 6), f"shots {d} choice {k}") for k in range(4)]
        made += [ScoringRequest(context, [letter], f"letters {d} {letter}") for letter in (65, 66)]
    made += [ScoringRequest(some(1, 40), some(1, 20), f"alone {d}") for d in range(6)]
    made.append(ScoringRequest([256], some(50, 50), "rolling"))
    return [*made, made[0]]


@torch.inference_mode()
def one_at_a_time(model: PreTrainedModel, requests: list[ScoringRequest], max_length: int = 256) -> list[LogLikelihood]:
    scores = []
    for request in requests:
        ids = [*request.context, *request.continuation][-(max_length + 1) :]
        logits = model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0, -len(request.continuation) :]
        targets = torch.tensor(request.continuation)
        picked = logits.log_softmax(-1).gather(1, targets[:, None])
        scores.append(LogLikelihood(float(picked.double().sum()), bool((logits.argmax(-1) == targets).all())))
    return scores


def greedy_requests(model: PreTrainedModel, requests: list[ScoringRequest]) -> list[ScoringRequest]:
    """The same with continuations of which half are what the model would write, so that flags differ."""
    made = []
    for i, request in enumerate(requests):
        ids = list(request.context)
        if i % 2:
            for _ in request.continuation:
                with torch.inference_mode():
                    ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            request = ScoringRequest(request.context, ids[len(request.context) :], request.name)
        made.append(request)
    return made


def assert_same(found: list[LogLikelihood], expected: list[LogLikelihood], tolerance: float = 1e-5) -> None:
    # Rounding grows with the size of a sum: the tolerance is for log-probabilities of some ten nats.
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.log_probability == pytest.approx(theirs.log_probability, abs=tolerance, rel=1e-6)
        assert mine.is_greedy == theirs.is_greedy


def mixed_widths(variant: str) -> PreTrainedModel:
    """Layers with four, no, two and one key-value groups, and as unequal MLPs."""
    model = tiny_model(variant)
    groups = ((0, 1, 2, 3), (), (1, 3), (2,))
    channels = (tuple(range(40)), tuple(range(7)), (), tuple(range(11, 39)))
    return cut(decoder_of(model), KeptUnits((0, 1, 2, 3), groups, channels))


def dropped_first(variant: str) -> PreTrainedModel:
    model = tiny_model(variant)
    whole = (0, 1, 2, 3)
    return cut(decoder_of(model), KeptUnits(whole, ((), whole, (), (0,)), (tuple(range(40)),) * 4))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    **{variant: lambda variant=variant: tiny_model(variant) for variant in VARIANTS},  # type: ignore[misc]
    **{f"mixed {v}": lambda v=v: mixed_widths(v) for v in VARIANTS},  # type: ignore[misc]
    "dropped first llama": lambda: dropped_first("llama"),
    "dropped first gemma2": lambda: dropped_first("gemma2"),
    "eager llama": lambda: tiny_model("llama", attn_implementation="eager"),
}


@pytest.mark.parametrize("name", MODELS)
def test_packed_is_one_at_a_time(name: str) -> None:
    model = MODELS[name]()
    requests = greedy_requests(model, documents())
    expected = one_at_a_time(model, requests)
    assert {score.is_greedy for score in expected} == {True, False}
    for batch_tokens in (None, 16, 4096):
        scorer = Scorer(model, max_length=256, batch_tokens=batch_tokens)
        assert_same(scorer.score(requests), expected)


@pytest.mark.parametrize("variant", ["llama", "gemma2"])
def test_results_do_not_depend_on_the_batch(variant: str, tiny: Callable[[str], Tiny]) -> None:
    model, requests = tiny(variant).model.model, documents()
    reference = Scorer(model, max_length=256, batch_tokens=1).score(requests)
    for batch_tokens in (50, 300, 10_000):
        assert_same(Scorer(model, max_length=256, batch_tokens=batch_tokens).score(requests), reference)
    backwards = Scorer(model, max_length=256, batch_tokens=300).score(requests[::-1])
    assert_same(backwards[::-1], reference)


@pytest.mark.parametrize("choice", ["pack", "cache", "split"])
def test_every_cut_of_the_tree_gives_the_same(
    choice: str, tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cheapest(_tree: Any, _costs: Any, _bounds: Any, group: Group, trunk: int) -> str:
        return "cache" if choice == "cache" and trunk > group.length else "pack" if choice == "pack" else "split"

    monkeypatch.setattr("prunelab.inference.batch_planning._cheapest", cheapest)
    for variant in ("llama", "qwen2_window", "mistral_window", "gemma2"):
        model = tiny(variant).model.model
        scorer = Scorer(model, max_length=256, batch_tokens=64)
        assert_same(scorer.score(documents()), one_at_a_time(model, documents()))


def test_truncated_requests_are_scored_on_what_is_left_and_counted(tiny: Callable[[str], Tiny]) -> None:
    model, requests = tiny("llama").model.model, documents()
    scorer = Scorer(model, max_length=55, batch_tokens=200)
    assert_same(scorer.score(requests), one_at_a_time(model, requests, max_length=55))
    long = [r for r in requests if len(r.context) + len(r.continuation) > 56]
    assert 0 < scorer.statistics.truncated == len(long) < len(requests) == scorer.statistics.requests


def test_one_letter_choices_cost_one_context(tiny: Callable[[str], Tiny]) -> None:
    context = list(range(100))
    requests = [ScoringRequest(context, [letter], f"choice {letter}") for letter in (1, 2, 3, 4)]
    scorer = Scorer(tiny("llama").model.model, max_length=256, batch_tokens=4096)
    scorer.score([*requests, *requests])
    assert scorer.statistics.computed_tokens == scorer.statistics.distinct_tokens == 100
    assert scorer.statistics.forwards == 1


def test_shared_shots_run_once(tiny: Callable[[str], Tiny]) -> None:
    shots = [i % 250 for i in range(150)]
    requests = [
        ScoringRequest([*shots, d, d + 1, d + 2], [choice, d], f"{d} {choice}")
        for d in range(0, 240, 6)
        for choice in range(4)
    ]
    scorer = Scorer(tiny("llama").model.model, max_length=256, batch_tokens=256)
    assert_same(scorer.score(requests), one_at_a_time(scorer._runner.model, requests))
    assert scorer.statistics.distinct_tokens == 150 + 40 * 7
    assert scorer.statistics.computed_tokens <= 1.1 * scorer.statistics.distinct_tokens


def test_the_head_sees_scored_tokens_only(tiny: Callable[[str], Tiny]) -> None:
    model, seen = tiny("llama").model.model, 0

    def count(_module: Any, arguments: tuple[torch.Tensor]) -> None:
        nonlocal seen
        seen += arguments[0].shape[:-1].numel()

    handle = model.get_output_embeddings().register_forward_pre_hook(count)
    Scorer(model, max_length=256, batch_tokens=512).score(
        [ScoringRequest(range(100), [1, 2, 3], "a"), ScoringRequest(range(100), [4, 5], "b")]
    )
    handle.remove()
    assert seen == 1 + 2 + 1  # the context's last token for both, then two tokens of a and one of b


def test_progress_counts_requests_that_are_done(tiny: Callable[[str], Tiny]) -> None:
    told: list[tuple[int, int]] = []
    scorer = Scorer(tiny("llama").model.model, max_length=256, batch_tokens=64)
    scorer.score(documents(), lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len({done for done, _ in told}) > 3
    assert told[-1] == (len(documents()), len(documents()))


def test_nothing_to_score(tiny: Callable[[str], Tiny]) -> None:
    assert Scorer(tiny("llama").model.model, max_length=256).score([]) == []


def test_batch_tokens_follow_from_model_and_device_and_are_kept(
    tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(tiny("llama").model.model, max_length=256)
    monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _: 1 << 40)
    scorer.score(documents())
    assert scorer.batch_tokens == 512  # more would be no faster on this device
    monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _: 1 << 20)
    scorer.score(documents())
    assert scorer.batch_tokens == 512
    for free in (1 << 30, 1 << 26, 1 << 24):  # far from empty: not what is free decides
        monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _, free=free: free)
        other = Scorer(tiny("llama").model.model, max_length=256)
        other.score(documents())
        assert (other.batch_tokens, other.shrunk_from) == (512, None)
    monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _: 1 << 20)
    small = Scorer(tiny("llama").model.model, max_length=256)
    with pytest.warns(UserWarning, match="not enough free memory for batches of 512 tokens"):
        small.score(documents())
    assert small.batch_tokens is not None
    assert 1 <= small.batch_tokens < 512
    assert small.shrunk_from == 512


def test_a_device_of_less_memory_has_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [memory_class(total) for total in (0, 1, 7, 9, 1000)] == [0, 1, 7, 8, 896]
    assert memory_class(int(139.7 * 2**30)) == memory_class(int(141.2 * 2**30)) == 128 * 2**30
    model, device = tiny_model("llama"), torch.device("cpu")
    found = []
    for total in (1 << 30, (1 << 30) + (1 << 26), 1 << 21, 1 << 19):
        monkeypatch.setattr("prunelab.inference.batch_memory.total_bytes", lambda _, total=total: total)
        found.append(batch_size(model, device, forward_bytes(model, 64), 512).tokens)
    assert found[0] == found[1] == 512
    assert 512 > found[2] > found[3] >= 1
    assert forward_bytes(tiny_model("gemma2"), 64) > forward_bytes(model, 64), "eager attention holds its weights"
    assert cache_bytes(model) == 2 * 4 * 4 * 4 * 4


def test_measured_memory_is_what_a_forward_holds() -> None:
    device = torch.device("cpu")
    weights = torch.ones(1000, 100)
    with measured_peak(device) as peak:
        hidden = torch.ones(10, 100) @ weights.T  # 4,000 bytes in, 40,000 out
        hidden = hidden.relu()  # and as many again, before the first are freed
    assert peak.bytes == pytest.approx(84_000, abs=4_000)
    assert tokens_that_fit(1e9, device, 512) >= 1
    assert tokens_that_fit(1.0, device, 700) == 512


def test_batches_that_do_not_fit_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_model("llama"), []
    forward = type(model).forward

    def limited(self: Any, input_ids: torch.Tensor, **arguments: Any) -> Any:
        sizes.append(input_ids.numel())
        if input_ids.shape[0] > 1 and input_ids.numel() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids=input_ids, **arguments)

    expected = one_at_a_time(model, documents())
    monkeypatch.setattr(type(model), "forward", limited)
    scorer = Scorer(model, max_length=256, batch_tokens=4096)
    with pytest.warns(UserWarning, match="not enough free memory for batches of 4,096 tokens"):
        assert_same(scorer.score(documents()), expected)
    assert max(sizes) > 100
    assert scorer.batch_tokens is not None
    assert scorer.shrunk_from == 4096
    assert scorer.batch_tokens < 4096


def test_a_row_that_does_not_fit_alone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")

    def never(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        Scorer(model, max_length=256, batch_tokens=64).score(documents()[:1])


def test_not_a_number_names_the_sample() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[77] = torch.nan
    context = list(range(20))
    requests = [
        ScoringRequest(context, [1, 2, 3], "arc, document 4"),
        ScoringRequest(context, [1, 77, 3], "arc, document 5"),
        ScoringRequest(context, [9, 9, 9], "arc, document 6"),
    ]
    with pytest.raises(NonFiniteValue, match=r"^arc, document 5: .*NaN"):
        Scorer(model, max_length=256, batch_tokens=512).score(requests)
    Scorer(model, max_length=256, batch_tokens=512).score([requests[0], requests[2]])


def test_a_continuation_longer_than_the_context_is_refused(tiny: Callable[[str], Tiny]) -> None:
    with pytest.raises(DataError, match="long text"):
        Scorer(tiny("llama").model.model, max_length=8).score([ScoringRequest([1], range(9), "long text")])


def test_a_model_that_takes_no_mask_is_refused() -> None:
    model = tiny_model("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InvalidRequest, match=r"flash_attention_2.*sdpa"):
        Scorer(model, max_length=256)
    other = tiny_model("qwen2")
    other.config.layer_types = ["full_attention", "linear_attention", "full_attention", "full_attention"]
    with pytest.raises(UnsupportedModel, match="linear_attention"):
        Scorer(other, max_length=256)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["llama", "gemma2"])
def test_sixteen_bits_stay_near(variant: str, dtype: torch.dtype) -> None:
    model = tiny_model(variant)
    expected = one_at_a_time(model, documents())
    found = Scorer(model.to(dtype), max_length=256, batch_tokens=256).score(documents())
    for mine, theirs, request in zip(found, expected, documents(), strict=True):
        tolerance = 0.4 * len(request.continuation)
        assert mine.log_probability == pytest.approx(theirs.log_probability, abs=tolerance)


def test_the_softmax_runs_in_pieces(tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama").model.model
    monkeypatch.setattr(module, "SOFTMAX_ELEMENTS", 3 * 258)
    found = Scorer(model, max_length=256, batch_tokens=512).score(documents())
    assert_same(found, one_at_a_time(model, documents()))
