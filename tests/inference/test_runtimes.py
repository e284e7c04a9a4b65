"""Generation eager and compiled, and the ideal beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ran, Tiny, byte_tokenizer, tiny_model

from prunelab.errors import MissingRequirement
from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.inference.runtimes import Runtime, TimedGeneration, bytes_a_second, bytes_a_token, check_runtime
from prunelab.models.families import decoder_of
from prunelab.models.loading import LanguageModel
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.surgery import cut


@torch.inference_mode()
def written(run: TimedGeneration, ids: torch.Tensor, count: int) -> list[int]:
    run.begin()
    tokens = [run.read(ids)]
    for index in range(count - 1):
        tokens.append(run.write(tokens[-1], ids.shape[1] + index))
    return [int(token) for token in tokens]


def has_compiler() -> bool:
    try:
        check_runtime("compiled")
    except MissingRequirement:
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler: install g++")
def test_compiled_writes_what_eager_writes() -> None:
    """Of a cut model, whose cache has other heads than its config says for all layers."""
    decoder = decoder_of(tiny_model("llama", num_hidden_layers=1))
    kept = KeptUnits((0,), ((1, 2),), (tuple(range(9)),))
    model = LanguageModel("m", cut(decoder, kept), byte_tokenizer())
    ids = torch.tensor([[256, 5, 6, 7]])
    found = {runtime: TimedGeneration(model, runtime, 16) for runtime in ("eager", "compiled")}
    expected = written(found["eager"], ids, 6)
    assert len(set(expected)) > 1
    assert written(found["compiled"], ids, 6) == expected
    assert written(found["compiled"], ids, 6) == expected, "the cache begins anew"
    generated = model.model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert generated[0, 4:].tolist() == expected


def test_a_token_reads_every_weight_once_and_one_row_of_the_embedding(tiny: Callable[[str], Tiny]) -> None:
    for variant, tied in (("llama", False), ("qwen2", True)):
        model = tiny(variant).model
        every = sum(p.numel() for p in model.model.parameters()) * 4
        embedding = 0 if tied else 258 * 32 * 4
        cache = 4 * 2 * 4 * 4 * 4  # blocks, keys and values, groups, channels, bytes
        assert bytes_a_token(model, 10) == every - embedding + 10 * cache


def test_throughput_stands_beside_its_ideal(tiny: Callable[[str], Tiny]) -> None:
    settings = EvaluationSettings(prompt_tokens=8, new_tokens=4, repeats=1)
    found = benchmarks["throughput"].evaluate(tiny("llama").model, settings)
    value = {score.metric: score.value for score in found.scores}
    assert value["share_of_ideal"] == pytest.approx(
        value["decode_tokens_per_second"] / value["ideal_tokens_per_second"]
    )
    assert 0 < value["share_of_ideal"] < 1
    assert found.conditions["runtime"] == "eager"
    identity = benchmarks["throughput"].identity(settings)
    assert identity != benchmarks["throughput"].identity(
        EvaluationSettings(prompt_tokens=8, new_tokens=4, repeats=1, runtime="compiled")
    )


def test_a_cut_is_run_in_turn_with_the_dense_model(
    tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine slows down by half with every run: the cut stays twice as fast, whatever its tokens per second."""
    whole, cut = tiny("llama").model, tiny("qwen2").model
    ran: list[str] = []

    def generate(run: TimedGeneration, ids: torch.Tensor, new: int) -> tuple[float, float]:
        ran.append(run.model.name)
        return 1.0, (1.0 if run.model is cut else 2.0) * 1.5 ** (ran.count(whole.name))

    monkeypatch.setattr("prunelab.evaluation.benchmarks.throughput.generate", generate)
    settings = EvaluationSettings(prompt_tokens=8, new_tokens=4, repeats=3, beside=whole)
    found = benchmarks["throughput"].evaluate(cut, settings)
    assert ran == [cut.name] * 2 + [whole.name, cut.name] * 3
    assert found.conditions["times_as_fast"] == pytest.approx(2.0)
    assert found.conditions["times_as_fast_spread"] == pytest.approx(0.0)
    assert found.scores[0].value == pytest.approx(3 / 1.5**2), "the median of its own runs"
    alone = benchmarks["throughput"].evaluate(cut, EvaluationSettings(prompt_tokens=8, new_tokens=4, repeats=3))
    assert "times_as_fast" not in alone.conditions


def test_what_a_model_takes_for_itself_counts_to_its_peak(
    tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others hold is found before its own cache is made, which a compiled one makes at once."""
    made: list[str] = []

    class Made(TimedGeneration):
        def __init__(self, model: LanguageModel, runtime: Runtime, length: int) -> None:
            super().__init__(model, runtime, length)
            made.append("cache")

    monkeypatch.setattr("prunelab.evaluation.benchmarks.throughput.TimedGeneration", Made)
    monkeypatch.setattr("prunelab.evaluation.benchmarks.throughput.held_by_others", lambda _: 1000 if made else 1)
    monkeypatch.setattr("prunelab.evaluation.benchmarks.throughput.peak_memory", lambda _: 5000)
    settings = EvaluationSettings(prompt_tokens=8, new_tokens=4, repeats=1)
    scores = {s.metric: s.value for s in benchmarks["throughput"].evaluate(tiny("llama").model, settings).scores}
    assert scores["peak_memory_bytes"] == 4999


def test_reading_is_timed_over_as_many_bytes_as_asked() -> None:
    waits: list[torch.device] = []
    assert bytes_a_second(torch.device("cpu"), 1 << 20, waits.append) > 1e8
    assert len(waits) == 10, "before and behind each of five"


def test_without_a_compiler_compiled_is_refused_before_anything_is_computed(
    tiny_checkpoint: Callable[[str], Path], command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    ran = command("throughput", tiny_checkpoint("llama"), "--runtime", "compiled")
    assert (ran.code, "needs a C++ compiler: install g++" in ran.err) == (2, True)
