"""A checkpoint's card shows a command for llama.cpp exactly where the export succeeds, and its reason elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import VARIANTS, Tiny, make_tiny
from llama_cpp import letter_tokenizer
from test_docs import commands, parse

from prunelab.checkpoint.card import model_card
from prunelab.checkpoint.gguf.export import export_gguf
from prunelab.checkpoint.gguf.support import fit_of
from prunelab.errors import UnsupportedModel
from prunelab.models.loading import LanguageModel
from prunelab.pruning.apply import PruningOptions, make_pruning_plan, pruned_model

pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in VARIANTS} | {
    "gemma2 with biases": ("gemma2", {"attention_bias": True}),
    "gemma2 without caps": ("gemma2", {"final_logit_softcapping": None}),
    "llama of another activation": ("llama", {"hidden_act": "gelu"}),
}
CUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "depth": ("shortgpt", {}),
    "map": ("replaceme", {}),
    "width": ("flap", {}),
    "width, no biases": ("flap", {"compensation": "none"}),
    "one width": ("flap", {"uniform": True}),
    "one width, no biases": ("flap", {"uniform": True, "compensation": "none"}),
    "sublayers": ("sublayer_influence", {"compensation": "none"}),
}


@pytest.fixture(scope="module")
def readable() -> Callable[[str], Tiny]:
    """Tiny models by case, with a tokenizer that llama.cpp knows."""
    made: dict[str, Tiny] = {}

    def get(case: str) -> Tiny:
        if case not in made:
            variant, changes = CASES[case]
            tiny = make_tiny(variant, **changes)
            made[case] = replace(tiny, model=replace(tiny.model, tokenizer=letter_tokenizer()))
        return made[case]

    return get


def shown(card: str) -> list[list[str]]:
    """The words of the card's export command, where it has one."""
    return [words for words in commands(card) if words[0] == "export"]


def exported(model: LanguageModel, path: Path, pad_widths: bool = False) -> str | None:
    """Why the model is not written; None where it is."""
    try:
        export_gguf(model, path, "q8_0", pad_widths=pad_widths, overwrite=True)
    except UnsupportedModel as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", CASES)
def test_the_card_says_what_the_export_does(
    case: str, cut: str, readable: Callable[[str], Tiny], tmp_path: Path
) -> None:
    tiny, (method, options) = readable(case), CUTS[cut]
    plan = make_pruning_plan(
        tiny.model, method, 0.25, statistics=tiny.statistics, calibration=tiny.calibration,
        options=PruningOptions(**options),
    )  # fmt: skip
    pruned = pruned_model(tiny.model, plan, tiny.statistics, tiny.calibration)
    card = model_card(pruned, plan, "prunelab prune x --method y --ratio 0.25 --out z")
    for words in commands(card):
        parse(words)
    plain = exported(pruned, tmp_path / "x.gguf")
    padded = exported(pruned, tmp_path / "x.gguf", pad_widths=True)
    if plain is None:
        (words,) = shown(card)
        assert "--pad-widths" not in words
    elif padded is None:
        (words,) = shown(card)
        assert "--pad-widths" in words
    else:
        assert not shown(card)
        assert f"llama.cpp cannot serve this model. `prunelab export` refuses it: {padded}." in card


def test_every_answer_is_among_the_cases(readable: Callable[[str], Tiny]) -> None:
    found = {case: fit_of(readable(case).model) for case in CASES}
    assert {fit.architecture for fit in found.values()} == {"", "llama", "qwen2", "gemma2"}
    assert "the file's context is the window" in " ".join(found["mistral_window"].notes)


def test_a_tokenizer_that_llama_cpp_does_not_compute(readable: Callable[[str], Tiny]) -> None:
    tiny = readable("llama")
    fit = fit_of(replace(tiny.model, tokenizer=make_tiny("llama").model.tokenizer))
    assert "tokenizer has no merges" in fit.refusal


def test_biases_of_a_gemma2_get_the_right_remedy(readable: Callable[[str], Tiny]) -> None:
    own = fit_of(readable("gemma2 with biases").model).refusal
    assert "biases of the base model (on k_proj, q_proj, v_proj)" in own
    assert "serve this model with transformers" in own
    assert "--compensation" not in own
    tiny = readable("gemma2")
    plan = make_pruning_plan(tiny.model, "flap", 0.2, statistics=tiny.statistics)
    compensated = fit_of(pruned_model(tiny.model, plan, tiny.statistics)).refusal
    assert "biases on its output projections" in compensated
    assert "prune again with --compensation none" in compensated
