"""Exported files against torch, computed by a real llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Tiny, make_tiny
from llama_cpp import LlamaCpp, letter_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prunelab.calibration import CalibrationSet, calibrate
from prunelab.checkpoint.gguf.export import NumberFormat, export_gguf
from prunelab.checkpoint.gguf.pretokenizer import LLAMA3
from prunelab.checkpoint.gguf.support import fit_of
from prunelab.checkpoint.vision_language import extract_language_model
from prunelab.errors import UnsupportedModel
from prunelab.models.bundled import POCKET_MODELS
from prunelab.models.loading import LanguageModel, load_model
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.apply import PruningOptions, make_pruning_plan, pruned_model
from prunelab.pruning.compensation import Compensation
from prunelab.pruning.surgery import cut

pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
pytest.importorskip("xllamacpp", reason="no llama.cpp: pip install xllamacpp")

PROMPT = [256, *((i * 37) % 250 for i in range(20))]
Make = Callable[[Tiny], LanguageModel]


@pytest.fixture(scope="module")
def readable() -> Callable[[str], Tiny]:
    """Tiny models by variant, with readable tokens."""
    made: dict[str, Tiny] = {}
    tokenizer = letter_tokenizer()

    def get(variant: str) -> Tiny:
        if variant not in made:
            tiny = make_tiny(variant)
            made[variant] = replace(tiny, model=replace(tiny.model, tokenizer=tokenizer))
        return made[variant]

    return get


def logits(model: LanguageModel, prompt: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        whole: torch.Tensor = model.model(torch.tensor([prompt])).logits[0, -1].float()
    return whole.log_softmax(-1)


def distance(model: LanguageModel, path: Path, prompt: Sequence[int] = PROMPT, **how: Any) -> tuple[str, float]:
    """The architecture, and how far llama.cpp's eight likeliest log-probabilities are from torch's."""
    done = export_gguf(model, path, **{"number_format": "f32", **how})
    expected = logits(model, prompt)
    found = LlamaCpp(path).top_log_probabilities(prompt)
    assert len(found) == 8
    return done.architecture, max(abs(float(expected[token]) - p) for token, p in found.items())


def dense(tiny: Tiny) -> LanguageModel:
    return tiny.model


def depth(tiny: Tiny) -> LanguageModel:
    """Without the third of four blocks: a Gemma-2's windows no longer alternate."""
    everything = KeptUnits.everything(tiny.model.decoder.shapes)
    return tiny.model.with_model(cut(tiny.model.decoder, everything.without_blocks([2])))


def width(compensation: Compensation = "bias", uniform: bool = False) -> Make:
    def make(tiny: Tiny) -> LanguageModel:
        options = PruningOptions(compensation=compensation, uniform=uniform)
        plan = make_pruning_plan(tiny.model, "flap", 0.2, statistics=tiny.statistics, options=options)
        return pruned_model(tiny.model, plan, tiny.statistics)

    return make


def dropped(block: int, compensation: Compensation = "bias", mlp: bool = False) -> Make:
    """Without one block's attention, or MLP, or with `mlp` and a block before it without both."""

    def make(tiny: Tiny) -> LanguageModel:
        everything = KeptUnits.everything(tiny.model.decoder.shapes)
        groups, channels = list(everything.key_value_groups), list(everything.channels)
        groups[block], channels[2] = (), (1, 2, 5, 7, 9, 11, 13)
        if mlp:
            channels[block] = channels[3] = ()
        kept = replace(everything, key_value_groups=tuple(groups), channels=tuple(channels))
        return tiny.model.with_model(cut(tiny.model.decoder, kept, compensation, tiny.statistics))

    return make


@pytest.mark.parametrize("variant", ["llama", "llama_biased", "qwen2", "mistral"])
@pytest.mark.parametrize(
    ("make", "architectures"),
    [
        (dense, ["llama", "qwen2"]),
        (depth, ["llama", "qwen2"]),
        (width(), ["deci"]),
        (width("none"), ["deci"]),
        (width(uniform=True), ["llama"]),
        (dropped(1), ["deci"]),
        (dropped(0, "none"), ["deci"]),
        (dropped(1, "none", mlp=True), ["deci"]),
        (dropped(1, mlp=True), ["deci"]),
    ],
)
def test_log_probabilities_are_torchs(
    variant: str, make: Make, architectures: list[str], readable: Callable[[str], Tiny], tmp_path: Path
) -> None:
    architecture, far = distance(make(readable(variant)), tmp_path / "x.gguf")
    assert architecture in architectures
    assert far < 1e-5


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (dense, {}),
        (depth, {}),
        (width("none", uniform=True), {}),
        (width("none"), {"pad_widths": True}),
        (dropped(1, "none"), {"pad_widths": True}),
        (dropped(0, "none", mlp=True), {"pad_widths": True}),
    ],
)
def test_gemma2_within_llama_cpps_gelu_table(
    make: Make, how: dict[str, Any], readable: Callable[[str], Tiny], tmp_path: Path
) -> None:
    model = make(readable("gemma2"))
    architecture, far = distance(model, tmp_path / "x.gguf", **how)
    assert architecture == "gemma2"
    assert far < 2e-3


def test_gemma2_with_as_many_blocks_as_the_27b(tmp_path: Path) -> None:
    tiny = make_tiny("gemma2", num_hidden_layers=46, query_pre_attn_scalar=7)
    model = replace(tiny.model, tokenizer=letter_tokenizer())
    assert distance(model, tmp_path / "x.gguf")[1] < 5e-3


@pytest.mark.parametrize("variant", ["mistral_window", "qwen2_window"])
def test_a_window_becomes_the_context(variant: str, readable: Callable[[str], Tiny], tmp_path: Path) -> None:
    model = readable(variant).model
    assert distance(model, tmp_path / "x.gguf", PROMPT[:7])[1] < 1e-5
    (note,) = export_gguf(model, tmp_path / "y.gguf", "f32").notes
    assert "the file's context is the window, 8 tokens" in note


@pytest.mark.parametrize(
    "positions",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
    ],
)  # fmt: skip
@pytest.mark.parametrize("variant", ["llama", "qwen2"])
def test_stretched_positions(variant: str, positions: dict[str, Any], tmp_path: Path) -> None:
    tiny = make_tiny(variant, rope_parameters={"rope_theta": 10000.0, **positions})
    model = replace(tiny.model, tokenizer=letter_tokenizer())
    assert distance(model, tmp_path / "x.gguf", [*PROMPT, *range(100)])[1] < 1e-5


@pytest.mark.parametrize(("number_format", "near"), [("f16", 0.05), ("bf16", 0.2), ("q8_0", 0.3)])
@pytest.mark.parametrize("make", [dense, width(), dropped(1, mlp=True)])
def test_other_number_formats(
    number_format: NumberFormat, near: float, make: Make, readable: Callable[[str], Tiny], tmp_path: Path
) -> None:
    model = make(readable("llama"))
    assert distance(model, tmp_path / "x.gguf", number_format=number_format)[1] < near
    whole = export_gguf(model, tmp_path / "y.gguf", "f32").size
    assert (tmp_path / "x.gguf").stat().st_size < whole


@pytest.fixture(scope="module")
def trained(corpus: Path) -> Callable[[str], list[LanguageModel]]:
    """A trained model in float32: whole, and without a fifth of its blocks or of its widths."""
    made: dict[str, list[LanguageModel]] = {}

    def get(path: str) -> list[LanguageModel]:
        if path not in made:
            model = load_model(path, device="cpu", dtype="float32")
            ids = torch.tensor(model.tokenizer(corpus.read_text()).input_ids)
            statistics = calibrate(model.decoder, CalibrationSet(ids[: len(ids) // 64 * 64].reshape(-1, 64)))
            # llama.cpp has no place for biases in a Gemma-2.
            options = PruningOptions(compensation="none" if model.decoder.family.name == "gemma2" else "auto")
            plans = [
                make_pruning_plan(model, method, 0.2, statistics=statistics, options=options)
                for method in ("shortgpt", "flap")
            ]
            made[path] = [model, *(pruned_model(model, plan, statistics) for plan in plans)]
        return made[path]

    return get


def assert_greedy_text_is_the_same(model: LanguageModel, prompt: str, path: Path) -> None:
    ids = model.tokenizer(prompt).input_ids
    export_gguf(model, path, "f32", pad_widths=fit_of(model).pad_widths)
    theirs = LlamaCpp(path)
    assert theirs.tokens(prompt) == ids
    assert theirs.greedy(ids, 50) == greedy(model, ids, 50)


@pytest.mark.parametrize("cut", range(3), ids=["whole", "depth", "width"])
@pytest.mark.parametrize("name", POCKET_MODELS)
def test_greedy_text_of_pocket_models_is_the_same(
    name: str, cut: int, trained: Callable[[str], list[LanguageModel]], tmp_path: Path
) -> None:
    assert_greedy_text_is_the_same(trained(name)[cut], "Question: What does the velmo eat?", tmp_path / "x.gguf")


@pytest.mark.parametrize("cut", range(3), ids=["whole", "depth", "width"])
def test_greedy_text_of_stories_is_the_same(
    cut: int, shared: Path, trained: Callable[[str], list[LanguageModel]], tmp_path: Path
) -> None:
    model = trained(str(shared / "models/stories260K"))[cut]
    assert_greedy_text_is_the_same(model, "Once upon a time", tmp_path / "x.gguf")


def greedy(model: LanguageModel, ids: list[int], count: int) -> list[int]:
    """As `LlamaCpp.greedy` does it, which goes on behind the end."""
    for _ in range(count):
        following = logits(model, ids).clone()
        following[..., model.tokenizer.eos_token_id] = -torch.inf
        ids = [*ids, int(following.argmax())]
    return ids[-count:]


TRICKY = (
    "Hello  World! I'll pay 12345 for it's café, naïve?\n\n\tTabs   and trailing  \n"
    "1st 22nd 333rd We'Re don't 日本語 🙂 "
)


@pytest.mark.parametrize("pattern", [None, LLAMA3])
def test_words_are_cut_as_by_llama_cpp(pattern: str | None, tmp_path: Path) -> None:
    core = Tokenizer(models.BPE())
    steps: list[Any] = []
    if pattern is not None:
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated")]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    core.train_from_iterator([TRICKY * 3], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    model = replace(make_tiny("llama", vocab_size=420).model, tokenizer=tokenizer)
    export_gguf(model, tmp_path / "x.gguf", "f32")
    theirs = LlamaCpp(tmp_path / "x.gguf")
    assert theirs.tokens(TRICKY) == tokenizer(TRICKY).input_ids
    assert theirs.chat([{"role": "user", "content": "Hi"}]) == "<user>Hi"


def test_stories_tokens(shared: Path, tmp_path: Path) -> None:
    model = load_model(str(shared / "models/stories260K"), device="cpu")
    export_gguf(model, tmp_path / "x.gguf", "q8_0")
    theirs = LlamaCpp(tmp_path / "x.gguf")
    for text in (TRICKY, " leading", "", "Lily and Tom were happy.\nThe end."):
        assert theirs.tokens(text) == model.tokenizer(text).input_ids


def test_the_language_model_of_one_that_sees(readable: Callable[[str], Tiny], tmp_path: Path) -> None:
    seeing = readable("idefics3").model
    with pytest.raises(UnsupportedModel, match="extract-language-model"):
        export_gguf(seeing, tmp_path / "x.gguf", "f32")
    language = replace(extract_language_model(seeing), tokenizer=seeing.tokenizer)
    assert distance(language, tmp_path / "x.gguf")[1] < 1e-5


def test_a_variant_that_no_test_here_covers_is_refused(tmp_path: Path) -> None:
    """What llama.cpp makes of a family is tested here, or the family is refused."""
    covered = {"llama", "llama_biased", "qwen2", "mistral", "gemma2", "mistral_window", "qwen2_window", "idefics3"}
    assert covered <= set(VARIANTS)
    for variant in set(VARIANTS) - covered:
        with pytest.raises(UnsupportedModel):
            export_gguf(make_tiny(variant).model, tmp_path / "x.gguf", "f32")


@pytest.mark.parametrize(
    ("make", "texts"),
    [(width(), ["biases", "--compensation none"]), (width("none"), ["blocks of different widths", "--pad-widths"])],
)
def test_what_gemma2_cannot_hold(make: Make, texts: list[str], readable: Callable[[str], Tiny], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel) as refusal:
        export_gguf(make(readable("gemma2")), tmp_path / "x.gguf", "f32")
    assert all(text in str(refusal.value) for text in texts)
    assert not list(tmp_path.iterdir())
