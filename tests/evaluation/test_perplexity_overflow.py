"""Perplexities that no float holds: left out or infinite, and never an error after the computing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Ran, Tiny
from hypothesis import given
from hypothesis import strategies as st
from miniature_hub import write_data_set

from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks, find_benchmark
from prunelab.evaluation.benchmarks.base import resampled_perplexity
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric, task_scores
from prunelab.stats.paired_tests import exponential

TinyOf = Callable[[str], Tiny]
LONG_WORD = "abcdefgh" * 300


@given(st.floats(-1e9, 1e9))
def test_the_exponential_is_infinite_where_it_overflows(exponent: float) -> None:
    assert exponential(exponent) == (math.exp(exponent) if exponent < 709.7 else math.inf)


@pytest.mark.parametrize("text", [LONG_WORD, "日本語" * 400, f"{LONG_WORD}\n{LONG_WORD}"])
def test_a_text_without_spaces_has_no_perplexity_by_word(text: str, tiny: TinyOf, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    evaluation = find_benchmark(f"text:{tmp_path / 'a.txt'}").evaluate(tiny("llama").model, EvaluationSettings())
    assert [score.metric for score in evaluation.scores] == ["token_perplexity", "byte_perplexity"]
    assert all(math.isfinite(score.value) for score in evaluation.scores)
    assert evaluation.conditions["larger than any float"] == "word_perplexity"


def test_wikitext_without_spaces_has_none_either(
    miniature: Path, tmp_path: Path, command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path]
) -> None:
    for repository, column in (("EleutherAI/wikitext_document_level", "page"), ("Salesforce/wikitext", "text")):
        rows = [{column: LONG_WORD} for _ in range(3)]
        write_data_set(tmp_path / repository, {"wikitext-2-raw-v1": {"test": rows}})
    arguments = ("--benchmark", "wikitext2", "--datasets-root", tmp_path, "--window", 64, "--device", "cpu")
    ran = command("evaluate", tiny_checkpoint("llama"), *arguments)
    assert (ran.code, ran.err) == (0, ""), ran
    assert "word_perplexity left out" in ran.out
    assert "byte_perplexity" in ran.out


def test_losses_of_a_broken_model_are_infinite_without_an_error(
    tiny: TinyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("one two three")
    benchmark = find_benchmark(f"text:{tmp_path / 'a.txt'}")
    monkeypatch.setattr(
        "prunelab.evaluation.benchmarks.text.token_losses", lambda model, ids: torch.full(ids[:, 1:].shape, 1e5)
    )
    evaluation = benchmark.evaluate(tiny("llama").model, EvaluationSettings())
    assert [(score.metric, score.value) for score in evaluation.scores] == [("token_perplexity", math.inf)]
    records = pd.DataFrame(evaluation.samples)
    assert benchmark.compare(records, records) is None


@pytest.mark.parametrize(("loss", "tested"), [(1.0, True), (650.0, True), (750.0, False), (1e300, False)])
def test_the_paired_test_is_left_out_where_it_would_overflow(loss: float, tested: bool) -> None:
    records = pd.DataFrame({"sample": range(8), "loss_sum": [loss * (1 + i) for i in range(8)], "tokens": range(1, 9)})
    assert (resampled_perplexity(records, records) is not None) is tested


def test_a_figure_of_lm_eval_that_overflowed_has_no_error() -> None:
    metric = Metric("word_perplexity", "word_perplexity,none", "perplexity")
    samples = [{"filter": "none", "word_perplexity": (-9e3, 1)} for _ in range(4)]
    (score,) = task_scores([metric], {"word_perplexity,none": math.inf}, samples)
    assert (score.value, score.standard_error) == (math.inf, None)


def test_lm_evals_aggregation_is_infinite_instead_of_an_error(miniature: Path) -> None:
    from prunelab.evaluation.benchmarks.lm_eval.definition import prepare
    from prunelab.evaluation.benchmarks.wikitext2 import PAGES

    task = prepare(PAGES, miniature).build(0, 0, 64)
    aggregate = task.aggregation()["word_perplexity"]
    assert aggregate([(-2.0, 2), (-4.0, 2)]) == pytest.approx(math.exp(1.5))
    assert aggregate([(-1e6, 1)]) == math.inf
    assert benchmarks["wikitext2"].primary == "token_perplexity"
