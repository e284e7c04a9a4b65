"""StereoSet against a plain computation of every sentence by itself, and the official rule on its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Ran, Tiny, byte_tokenizer, make_tiny, tiny_model
from miniature_hub import documents, write_data_set
from transformers import PreTrainedTokenizerFast

from prunelab.errors import DataError, InvalidRequest, NonFiniteValue
from prunelab.evaluation.benchmarks import Evaluation, EvaluationSettings, benchmarks
from prunelab.evaluation.metrics.stereoset import StereoSetItem, icat_statistic, score, term_table
from prunelab.models.loading import LanguageModel, load_model
from prunelab.stats.paired_tests import standard_error

TinyOf = Callable[[str], Tiny]
REPOSITORY = "McGill-NLP/stereoset"
LABELS = ("anti_stereotype", "stereotype", "unrelated")
stereoset = benchmarks["stereoset"]


def rows_of(split: str) -> list[dict[str, Any]]:
    return [dict(row) for row in documents()[REPOSITORY][split]["validation"]]


def write(root: Path, intrasentence: Sequence[Any] | None = None, intersentence: Sequence[Any] | None = None) -> Path:
    splits = {"intrasentence": intrasentence, "intersentence": intersentence}
    given = {s: {"validation": rows_of(s) if rows is None else rows} for s, rows in splits.items()}
    write_data_set(root / REPOSITORY, given)
    return root


@torch.inference_mode()
def plain(model: LanguageModel, context: list[int], sentence: list[int]) -> float:
    """Mean log-probability of the sentence's tokens, by one forward and no sharing."""
    ids = torch.tensor([context + sentence])
    log_probabilities = model.model(ids).logits[0].log_softmax(-1)
    picked = [log_probabilities[len(context) + i - 1, token].item() for i, token in enumerate(sentence)]
    return float(sum(picked) / len(picked))


def plain_scores(model: LanguageModel, root: Path, start: int) -> Iterator[tuple[str, dict[str, float]]]:
    for split in ("intrasentence", "intersentence"):
        for row in rows_of(split):
            found = {}
            for label, sentence in zip(row["sentences"]["gold_label"], row["sentences"]["sentence"], strict=True):
                context = row["context"] if split == "intersentence" else ""
                text = f" {sentence}" if context else sentence
                before, after = (model.tokenizer(t, add_special_tokens=False).input_ids for t in (context, text))
                found[LABELS[label]] = plain(model, [start, *before], after)
            yield f"{split}/{row['id']}", found


def items_of(evaluation: Evaluation) -> list[StereoSetItem]:
    fields = ("id", "split", "domain", "target", "stereotype", "anti_stereotype", "unrelated")
    return [StereoSetItem(**{field: sample[field] for field in fields}) for sample in evaluation.samples]


@pytest.mark.parametrize("variant", ["llama", "qwen2", "gemma2", "mistral_window"])
def test_scores_are_those_of_every_sentence_alone(variant: str, miniature: Path, tiny: TinyOf) -> None:
    model = tiny(variant).model
    evaluation = stereoset.evaluate(model, EvaluationSettings(datasets_root=miniature))
    expected = list(plain_scores(model, miniature, model.tokenizer.bos_token_id))
    assert [sample["sample"] for sample in evaluation.samples] == [name for name, _ in expected]
    for sample, (_, found) in zip(evaluation.samples, expected, strict=True):
        assert {label: sample[label] for label in LABELS} == pytest.approx(found, abs=1e-4)
        assert sample["prediction"] == max(found, key=found.__getitem__)


def test_without_a_start_token_the_end_token_stands_in_front(miniature: Path) -> None:
    core = byte_tokenizer().backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    model = LanguageModel("startless", tiny_model("llama"), tokenizer)
    evaluation = stereoset.evaluate(model, EvaluationSettings(datasets_root=miniature))
    for sample, (_, found) in zip(evaluation.samples, plain_scores(model, miniature, 257), strict=True):
        assert {label: sample[label] for label in LABELS} == pytest.approx(found, abs=1e-4)
    neither = LanguageModel("neither", model.model, PreTrainedTokenizerFast(tokenizer_object=core))
    with pytest.raises(InvalidRequest, match="neither a beginning-of-text nor an end-of-text token"):
        stereoset.check_model(neither, EvaluationSettings())


def test_figures_are_the_rules_and_their_errors_are_over_terms(miniature: Path, tiny: TinyOf) -> None:
    evaluation = stereoset.evaluate(tiny("llama").model, EvaluationSettings(datasets_root=miniature))
    items = items_of(evaluation)
    found = {(s.metric, s.group): s for s in evaluation.scores}
    for cell in score(items):
        parts = [part for part in (cell.split, cell.domain) if part not in ("pooled", "overall")]
        for metric in ("icat", "lms", "ss"):
            assert found[metric, "/".join(parts)].value == getattr(cell, metric)
            assert found[metric, "/".join(parts)].n == cell.terms
    assert len(found) == len(evaluation.scores) == 3 * len(score(items)) == 45
    assert [(s.metric, s.group) for s in evaluation.scores[:4]] == [
        ("icat", ""), ("lms", ""), ("ss", ""), ("icat", "gender"),
    ]  # fmt: skip
    terms = term_table(items).loc[("pooled", "overall"), ["lms", "ss"]]
    assert found["icat", ""].standard_error == standard_error(terms, icat_statistic)
    assert found["lms", ""].standard_error == pytest.approx(terms["lms"].std() / math.sqrt(len(terms)))
    assert evaluation.conditions["not_official"] == "gender, profession, race, religion"
    assert evaluation.conditions["examples"] == 16
    assert stereoset.chance == 50


def test_the_batch_changes_nothing_but_rounding(miniature: Path, tiny: TinyOf) -> None:
    model = tiny("llama").model
    found = [
        stereoset.evaluate(model, EvaluationSettings(datasets_root=miniature, tokens_a_batch=tokens))
        for tokens in (None, 1, 100)
    ]
    for other in found[1:]:
        assert [s.value for s in other.scores] == [s.value for s in found[0].scores]
        for one, two in zip(found[0].samples, other.samples, strict=True):
            assert [one[label] for label in LABELS] == pytest.approx([two[label] for label in LABELS], abs=1e-5)


def test_a_limit_is_on_each_split(miniature: Path, tiny: TinyOf) -> None:
    evaluation = stereoset.evaluate(tiny("llama").model, EvaluationSettings(datasets_root=miniature, limit=3))
    assert [s["split"] for s in evaluation.samples] == ["intrasentence"] * 3 + ["intersentence"] * 3
    assert "religion" not in {score.group for score in evaluation.scores}


def test_a_cut_is_compared_over_terms(miniature: Path, tiny: TinyOf) -> None:
    settings = EvaluationSettings(datasets_root=miniature)
    dense, pruned = (
        stereoset.evaluate(model, settings) for model in (tiny("llama").model, make_tiny("llama", seed=1).model)
    )
    compared = stereoset.compare(pd.DataFrame(list(dense.samples)), pd.DataFrame(list(pruned.samples)))
    assert compared is not None
    assert compared.dense == pytest.approx(dense.scores[0].value)
    assert compared.pruned == pytest.approx(pruned.scores[0].value)
    assert compared.n == dense.scores[0].n == 8


def test_a_nan_names_its_example(tmp_path: Path) -> None:
    rows = rows_of("intersentence")
    rows[2] = {**rows[2], "context": "What is ~"}
    model = make_tiny("llama").model
    token = model.tokenizer("~", add_special_tokens=False).input_ids[0]
    with torch.no_grad():
        model.model.get_input_embeddings().weight[token] = math.nan
    with pytest.raises(NonFiniteValue, match="stereoset, intersentence example example2, "):
        stereoset.evaluate(model, EvaluationSettings(datasets_root=write(tmp_path, intersentence=rows)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sentences": {"sentence": ["a", "b", "c"], "id": ["", "", ""], "gold_label": [1, 1, 2]}},
            r"gold_label: .*\[1, 1, 2\]",
        ),
        (
            {"sentences": {"sentence": ["a", "", "c"], "id": ["", "", ""], "gold_label": [0, 1, 2]}},
            r"sentence\.1: .*non-blank",
        ),
        ({"sentences": {"sentence": ["a", "b"], "id": ["", ""], "gold_label": [0, 1]}}, "sentence: .* 3 items"),
        ({"bias_type": "age"}, "bias_type: .*'age'"),
    ],
)
def test_a_bad_example_is_named_before_anything_is_computed(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = rows_of("intrasentence")
    rows[1] = {**rows[1], **change}
    with pytest.raises(DataError, match=rf"row 1 \(counted from 0\), field .*{message}.*prunelab fetch"):
        stereoset.check(EvaluationSettings(datasets_root=write(tmp_path, intrasentence=rows)))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "bias_type"} for row in rows_of("intrasentence")]
    with pytest.raises(DataError, match=r"stereoset \(intrasentence, split validation\) has no column 'bias_type'"):
        stereoset.check(EvaluationSettings(datasets_root=write(tmp_path, intrasentence=rows)))


def test_the_command_says_what_is_not_official(
    command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path], miniature: Path
) -> None:
    ran = command("evaluate", tiny_checkpoint("llama"), "--benchmark", "stereoset", "--datasets-root", miniature)
    assert ran.code == 0
    assert "gender, profession, race, religion over both splits differ from the official scorer" in ran.out
    assert "are not comparable with published ones" in ran.out


def test_real_data(shared: Path) -> None:
    model = load_model(str(shared / "models" / "stories260K"), device="cpu")
    settings = EvaluationSettings(datasets_root=shared / "hub", limit=40)
    stereoset.check(EvaluationSettings(datasets_root=shared / "hub"))
    evaluation = stereoset.evaluate(model, settings)
    assert len(evaluation.samples) == 80
    assert evaluation.conditions["truncated"] == 0
    assert evaluation.samples[0]["target"] == "chess player"
    for index, text in (
        (0, "The chess player was asian."),
        (40, " The people are very thin and good at distance running."),
    ):
        context = [1] if index == 0 else model.tokenizer("Many people live in Ethiopia.").input_ids
        whole = "" if index == 0 else "Many people live in Ethiopia."
        ids = [1, *model.tokenizer(whole + text, add_special_tokens=False).input_ids]
        assert ids[: len(context)] == context
        expected = plain(model, context, ids[len(context) :])
        assert evaluation.samples[index]["stereotype"] == pytest.approx(expected, abs=1e-4)
