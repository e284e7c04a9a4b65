"""A model and its cuts in depth in one pass: the numbers of the models one by one, and less work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Tiny, byte_tokenizer, tiny_model
from test_scoring_loglikelihood import documents
from transformers import PreTrainedModel

from prunelab.errors import NonFiniteValue
from prunelab.evaluation.benchmarks import benchmarks
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.inference.loglikelihood import Scorer, SharedPrefixScorer
from prunelab.inference.losses import token_losses
from prunelab.inference.make_scorer import make_scorer
from prunelab.inference.shared_blocks import SharedPrefixModels
from prunelab.inference.shared_scoring import SharedEvaluation
from prunelab.models.families import decoder_of
from prunelab.models.loading import LanguageModel
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.surgery import cut
from prunelab.studies.config import study_config
from prunelab.studies.run import Run
from prunelab.studies.runner import run_study
from prunelab.studies.store import Measurement

TinyOf = Callable[[str], Tiny]
# One is the beginning of the dense model, one lost its first block, two share more with each other than with it.
KEPT = [(0, 1, 2, 3), (0, 1, 2), (1, 2, 3), (0, 1, 3), (0, 3), (0, 1)]


def cuts(model: PreTrainedModel, kept: list[tuple[int, ...]]) -> list[PreTrainedModel]:
    decoder = decoder_of(model)
    whole = KeptUnits.everything(decoder.shapes)
    return [
        model if len(blocks) == 4 else cut(decoder, whole.without_blocks([b for b in range(4) if b not in blocks]))
        for blocks in kept
    ]


def blocks_run(model: PreTrainedModel) -> list[int]:
    """Counts a call of each block of the model, by block; its cuts have blocks of their own that are not counted."""
    counts = [0] * 4
    for index, block in enumerate(decoder_of(model).blocks):

        def count(*_: Any, index: int = index) -> None:
            counts[index] += 1

        block.register_forward_hook(count)
    return counts


@pytest.mark.parametrize("variant", VARIANTS)
def test_together_is_one_by_one_to_the_bit(variant: str) -> None:
    models, requests, batch_tokens = cuts(tiny_model(variant), KEPT), documents(), 200
    alone = [Scorer(model, max_length=256, batch_tokens=batch_tokens).score(requests) for model in models]
    together = SharedPrefixScorer(SharedPrefixModels(models), max_length=256, batch_tokens=batch_tokens)
    assert together.score_each(requests) == alone
    without_dense = SharedPrefixModels(models[1:][::-1])
    assert (
        SharedPrefixScorer(without_dense, max_length=256, batch_tokens=batch_tokens).score_each(requests)
        == (alone[1:][::-1])
    )
    assert Scorer(models[0], max_length=256, batch_tokens=batch_tokens).score(requests) == alone[0], "left as it was"


def test_what_is_shared_runs_once() -> None:
    models = cuts(tiny_model("llama"), KEPT)
    together = SharedPrefixModels(models)
    # 17 blocks, of which (1, 2, 3) has three to itself, (0, 1, 3) and (0, 3) one, and the others are the dense four.
    assert together.shared_blocks == 17 - 9
    counts = blocks_run(models[0])
    ids = torch.tensor([[1, 2, 3]])
    assert [index for index, _ in together.run(lambda model: model(ids, use_cache=False))] == [5, 1, 0, 3, 4, 2]
    # (0, 1), a beginning of the dense model, ran blocks 0 and 1 for it, (0, 1, 2) block 2.
    assert counts == [0, 0, 0, 1]


def test_models_that_share_nothing_share_nothing() -> None:
    models = [tiny_model("llama", seed=seed) for seed in (0, 1)]
    assert SharedPrefixModels(models).shared_blocks == 0
    expected = [Scorer(model, max_length=256, batch_tokens=64).score(documents()) for model in models]
    assert (
        SharedPrefixScorer(SharedPrefixModels(models), max_length=256, batch_tokens=64).score_each(documents())
        == expected
    )


def test_a_width_cut_shares_the_blocks_before_its_first_narrow_one(tiny: TinyOf) -> None:
    decoder = tiny("llama").model.decoder
    whole = KeptUnits.everything(decoder.shapes)
    narrow = replace(whole, channels=(*whole.channels[:2], (0, 1), *whole.channels[3:]))
    models = [decoder.model, cut(decoder, narrow)]
    assert SharedPrefixModels(models).shared_blocks == 2
    expected = [Scorer(model, max_length=256, batch_tokens=64).score(documents()) for model in models]
    assert (
        SharedPrefixScorer(SharedPrefixModels(models), max_length=256, batch_tokens=64).score_each(documents())
        == expected
    )


def test_losses_of_windows_are_those_one_by_one() -> None:
    models = [LanguageModel("m", model, byte_tokenizer()) for model in cuts(tiny_model("gemma2"), KEPT)]
    ids = torch.randint(250, (5, 40), generator=torch.Generator().manual_seed(0))
    alone = [token_losses(model, ids, 100) for model in models]
    shared = SharedEvaluation([model.model for model in models])
    for model, expected in zip(models, alone, strict=True):
        assert torch.equal(token_losses(replace(model, shared=shared), ids, 100), expected)


def test_the_first_one_asked_finds_the_others_answers() -> None:
    models = [LanguageModel("m", model, byte_tokenizer()) for model in cuts(tiny_model("llama"), KEPT[:3])]
    shared = SharedEvaluation([model.model for model in models])
    counts = blocks_run(models[0].model)
    told: list[tuple[int, int]] = []
    for model in models:
        alone = Scorer(model.model, max_length=256)
        expected = alone.score(documents())
        before = list(counts)
        scorer = make_scorer(replace(model, shared=shared), max_length=256)
        told.clear()
        assert scorer.score(documents(), lambda *done: told.append(done)) == expected
        assert told[-1] == (len(documents()), len(documents()))
        assert scorer.batch_tokens == alone.batch_tokens
        assert scorer.statistics.truncated == alone.statistics.truncated
        assert (counts == before) == (model is not models[0])
    shares = [shared.attributed_seconds(model.model) for model in models]
    assert sum(shares) == pytest.approx(0, abs=1e-9), "time is moved from the first to the others, and none is lost"
    assert shares[0] < 0 < shares[1] == shares[2]


def test_nan_in_one_leaves_the_others_their_scores() -> None:
    model = tiny_model("llama")
    models = cuts(model, [(0, 1, 2, 3), (0, 1, 2), (0, 1)])
    expected = [Scorer(one, max_length=256, batch_tokens=64).score(documents()) for one in models]
    with torch.no_grad():
        decoder_of(model).blocks[2].get_parameter("mlp.down_proj.weight")[3] = torch.nan
    found = SharedPrefixScorer(SharedPrefixModels(models), max_length=256, batch_tokens=64).score_each(documents())
    assert [type(one) for one in found] == [NonFiniteValue, NonFiniteValue, list]
    assert found[2] == expected[2]
    with pytest.raises(NonFiniteValue, match="the model's logits hold NaN"):
        make_scorer(
            replace(LanguageModel("m", models[0], byte_tokenizer()), shared=SharedEvaluation(models)), max_length=256
        ).score(documents())


def test_benchmarks_say_whether_all_they_ask_are_likelihoods(miniature: Path) -> None:
    from prunelab.evaluation.benchmarks import EvaluationSettings

    for benchmark in benchmarks.values():
        if isinstance(benchmark, LmEvalBenchmark) and benchmark.name != "ifeval":
            tasks = benchmark.tasks(EvaluationSettings(datasets_root=miniature))
            assert benchmark.scores_likelihoods == (not any(task.generates for task in tasks.values())), benchmark.name
    assert not benchmarks["throughput"].scores_likelihoods


@pytest.mark.parametrize("variant", ["llama", "gemma2"])
def test_a_study_scores_depth_cells_with_the_dense_model_and_finds_the_same(
    variant: str,
    tiny_checkpoint: Callable[[str], Path],
    corpus: Path,
    miniature: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        "models": [str(tiny_checkpoint(variant))], "methods": ["shortgpt", "flap", "random_depth"],
        "ratios": [0.25, 0.5], "benchmarks": [f"text:{corpus}", "boolq", "stereoset", "mmlu", "throughput"],
        "device": "cpu", "limit": 3, "datasets_root": str(miniature), "shots": [0],
        "calibration": {"corpus": str(corpus), "samples": 8, "sequence_length": 64, "held_out": 2},
    }  # fmt: skip

    def study(name: str) -> Run:
        run = run_study(study_config({**given, "out": str(tmp_path / name)}), say=lambda line: None)
        assert not run.failures, run.failures
        return run

    passes: list[int] = []
    plain = SharedPrefixModels.run

    def counted(self: SharedPrefixModels, forward: Callable[[PreTrainedModel], Any]) -> Iterator[tuple[int, Any]]:
        passes.append(len(self.models))
        return plain(self, forward)

    monkeypatch.setattr(SharedPrefixModels, "run", counted)
    together = study("together")
    plans = {one.primary.plan for one in together.measured if one.primary.method != "flap"}
    assert set(passes) == {len(plans)}, "the dense model and its cuts in depth, of which two may be the same"
    assert len(plans) > 3
    monkeypatch.setattr("prunelab.studies.model_runner.ModelStudy.score_together", lambda self: None)
    alone = study("alone")

    def figures(run: Run) -> list[dict[str, Any]]:
        def row(m: Measurement) -> dict[str, Any]:
            details = {name: value for name, value in m.details.items() if not name.startswith("times_as_fast")}
            value = None if m.benchmark == "throughput" else m.value
            return {**m.model_dump(exclude={"seconds"}), "value": value, "details": details}

        return [row(m) for m in run.measurements]

    assert figures(together) == figures(alone)
    speeds = [one.primary for one in together.measured if one.primary.benchmark == "throughput"]
    assert all(("times_as_fast" in m.details) == (m.method != "dense") for m in speeds)
    assert [one.path.name for one in together.measured] == [one.path.name for one in alone.measured]
    for one, other in zip(together.measured, alone.measured, strict=True):
        if one.samples is not None and other.samples is not None:
            assert one.samples.equals(other.samples)
