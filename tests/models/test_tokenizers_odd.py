"""Tokenizers that add, lack or take away something: right numbers, or one line before anything is computed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran, byte_tokenizer, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from seeing import llava_processor, stripes
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prunelab.calibration.corpus import start_tokens
from prunelab.errors import DataError, InvalidRequest, PrunelabError
from prunelab.inference import Prompt, Sampler, SamplingSettings, Scorer, ScoringRequest
from prunelab.inference.continuation import continuation_text
from prunelab.inference.lm_eval_adapter import PrunelabLM
from prunelab.inference.losses import token_losses
from prunelab.inference.tokenization import Encoder
from prunelab.models.chat_templates import check_template, render
from prunelab.models.loading import LanguageModel, load_model
from prunelab.models.metadata import load_outline
from prunelab.models.offloading import load_offloaded
from prunelab.models.streaming.model import open_streamed
from prunelab.models.tokenizer_validation import AddedTokens, added_tokens
from prunelab.models.vision.dialogue import model_inputs

ENDINGS = {
    "end": "<s> $A </s>",
    "two ends": "<s> $A </s> </s>",
    "no start": "$A </s>",
    "class and separator": "</s> $A <s>",
}


@cache
def ending(template: str) -> PreTrainedTokenizerFast:
    """The byte tokenizer with other special tokens around every text."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    return tokenizer


@cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama 2's kind: a space in front of every text, and the first space of what is decoded taken away."""
    letters = [f"<0x{byte:02X}>" for byte in range(256)] + sorted('▁abcdefghijklmnopqrstuvwxyz():"+=.,')
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *letters])}
    merges = []
    for pair in (("▁", "▁"), ("▁▁", "▁▁"), ("▁", "a"), ("▁", "b"), ("r", "e")):
        vocabulary.setdefault("".join(pair), len(vocabulary))
        merges.append(pair)
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def metaspace() -> PreTrainedTokenizerFast:
    """Unigram with a metaspace decoder, as T5's and newer conversions of SentencePiece have it."""
    pieces = [
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        *((letter, -3.0) for letter in "▁abcdefgh=.,():+\n"),
        ("▁a", -2.0),
    ]
    core = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": byte_tokenizer,
    "sentencepiece": sentencepiece,
    "metaspace": metaspace,
}


# What stands behind a text.


def test_what_is_added_is_told() -> None:
    assert added_tokens(byte_tokenizer()) == AddedTokens((256,), ())
    assert added_tokens(ending("<s> $A </s> </s>")) == AddedTokens((256,), (257, 257))
    assert added_tokens(ending("$A")) == AddedTokens()
    assert start_tokens(ending("<s> $A </s>")) == [256]
    assert start_tokens(ending("$A <s>")) == []


@settings(max_examples=25, deadline=None, derandomize=True)
@given(context=st.text(max_size=12), rest=st.text(min_size=1, max_size=6), template=st.sampled_from(sorted(ENDINGS)))
def test_contexts_and_prompts_do_not_end_with_an_end(context: str, rest: str, template: str) -> None:
    odd, plain = ending(ENDINGS[template]), ending(ENDINGS[template].partition("$A")[0] + "$A")
    assert Encoder(odd).encode_pairs([(context, rest)]) == Encoder(plain).encode_pairs([(context, rest)])
    for rule in (None, True, False):
        assert Encoder(odd, rule).encode([context + rest]) == Encoder(plain, rule).encode([context + rest])
    assert Encoder(odd).encode_prompts([context]) == Encoder(plain).encode_prompts([context])


def test_an_end_that_the_text_spells_stays() -> None:
    assert Encoder(ending("<s> $A </s>")).encode(["a</s>"])["a</s>"][-1] == 257


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", ["<s> $A </s>", "<s> $A </s> </s>"])
def test_questions_with_pictures_do_not_end_with_an_end(side: str, template: str) -> None:
    odd, plain = llava_processor(deepcopy(ending(template))), llava_processor(byte_tokenizer())
    texts = ["<image>short", "<image>a longer question"]
    inputs = [model_inputs(one, texts, [[stripes()], [stripes()]], side) for one in (odd, plain)]
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(inputs[0][name], inputs[1][name]), name


# What is taken away when decoding.


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(TOKENIZERS)), text=st.text("ab =(.\n,", min_size=2, max_size=30), data=st.data())
def test_prompt_and_continuation_are_the_whole(name: str, text: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer(text).input_ids
    cut = data.draw(st.integers(1, len(ids)))
    before = tokenizer.decode(ids[:cut], skip_special_tokens=True)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    if whole.startswith(before):  # not where the cut goes through a character
        assert before + continuation_text(tokenizer, ids[:cut], ids[cut:]) == whole


def test_a_prompt_of_special_tokens_or_within_a_character() -> None:
    tokenizer = sentencepiece()
    ids = tokenizer("a b").input_ids
    assert continuation_text(tokenizer, [1], ids[1:]) == "a b"
    assert continuation_text(tokenizer, ids + [2] * 40, ids[-1:]) == " b"
    spelled = byte_tokenizer()("é", add_special_tokens=False).input_ids
    assert continuation_text(byte_tokenizer(), [97, *spelled[:1]], spelled[1:]) == "é"
    assert continuation_text(tokenizer, [], ids[-1:]) == "b"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stop_string_at_the_very_beginning(name: str) -> None:
    """The model writes one token for ever: it stops at the first, and nothing is left."""
    tokenizer = TOKENIZERS[name]()
    token = tokenizer("a a", add_special_tokens=False).input_ids[-1]
    model = tiny_model("llama", vocab_size=max(len(tokenizer), 258), bos_token_id=1, eos_token_id=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for ones in (model.model.norm.weight, model.model.embed_tokens.weight, model.lm_head.weight[token]):
            ones.fill_(1)
    sampler = Sampler(model, tokenizer, max_length=100, eos_token_ids=())
    stop = continuation_text(tokenizer, [token], [token])
    assert stop == ("a" if name == "bytes" else " a")
    for prompt in ("a", "a longer prompt"):
        [[one]] = sampler.generate(
            [Prompt(tokenizer(prompt).input_ids, prompt)], SamplingSettings(max_new_tokens=6, stop=(stop,))
        )
        assert (one.text, one.tokens, one.finish_reason) == ("", 1, "stop")


# No token to begin or to end with.


def without_ends() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=ending("$A").backend_tokenizer)


def test_without_begin_and_end() -> None:
    tokenizer, model = without_ends(), tiny_model("llama", eos_token_id=None, bos_token_id=None)
    model.generation_config.eos_token_id = None
    encoder = Encoder(tokenizer)
    assert encoder.prefix_token_id is None
    assert encoder.encode_pairs([("ab", " c")])[0][0] == tokenizer("ab").input_ids
    with pytest.raises(InvalidRequest, match="set bos_token"):
        encoder.encode_pairs([("", "c")])
    assert start_tokens(tokenizer) == []
    [[one]] = Sampler(model, tokenizer, max_length=64).generate(
        [Prompt([5, 6], "a")], SamplingSettings(max_new_tokens=3)
    )
    assert (one.tokens, one.finish_reason) == (3, "length")
    lm = PrunelabLM(model, tokenizer, max_length=64)
    assert lm.eot_token_id is None
    assert lm.prefix_token_id is None


@pytest.mark.parametrize("benchmark", ["arc_easy", "stereoset", "gsm8k", "wikitext2", "winogrande"])
def test_benchmarks_work_or_refuse(
    benchmark: str, miniature: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    model = tiny_model("llama", eos_token_id=None, bos_token_id=None)
    model.save_pretrained(tmp_path / "m")
    without_ends().save_pretrained(tmp_path / "m")
    ran = command(
        "evaluate", tmp_path / "m", "--benchmark", benchmark, "--datasets-root", miniature, "--limit", 2, "--window", 16
    )
    refuses = benchmark in ("stereoset", "wikitext2")
    assert ran.code == (2 if refuses else 0), ran.err
    assert not refuses or "set bos_token in its tokenizer_config.json" in ran.err


# Ids beyond the embedding.


def beyond(kind: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    if kind == "ordinary token":
        tokenizer.add_tokens(["more"])
    elif kind == "many tokens":
        tokenizer.add_tokens([AddedToken(f"word{n}", special=False) for n in range(20)])
    else:
        tokenizer.add_special_tokens({"bos_token" if kind == "start token" else "eos_token": "<new>"})
    return tokenizer


@pytest.mark.parametrize("kind", ["ordinary token", "many tokens", "start token", "end token"])
def test_tokens_without_an_embedding_are_refused_by_every_reader(kind: str, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    beyond(kind).save_pretrained(tmp_path)
    for read in (load_model, open_streamed, lambda name: load_offloaded(name, memory=1), load_outline):
        with pytest.raises(PrunelabError, match=r"tokenizer has token .* embedding has 258 rows"):
            read(str(tmp_path))


def test_a_special_token_that_a_text_spells_is_refused_before_computing(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tiny_model("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))  # the padding token is in no text
    ids = model.tokenizer("a<pad>b").input_ids
    scorer = Scorer(model.model, max_length=64)
    with pytest.raises(DataError, match=r"doc 1 has token id 258.*258 rows"):
        scorer.score([ScoringRequest([1, 2], [3], "doc 0"), ScoringRequest(ids, [3], "doc 1")])
    assert scorer.statistics.forwards == 0
    with pytest.raises(DataError, match="token id 258"):
        Sampler(model.model, tokenizer, max_length=64).generate(
            [Prompt(ids, "doc")], SamplingSettings(max_new_tokens=2)
        )
    with pytest.raises(DataError, match="token id 258"):
        token_losses(model, torch.tensor([ids]))


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0", "model": {"type": "Nothing"}}', "[]", "nonsense"])
def test_a_tokenizer_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(PrunelabError, match="tokenizer") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


# Chat templates.

NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
UNUSABLE: dict[str, Any] = {
    "named, none is default": {"tool_use": "{{ messages[0].content }}", "rag": "{{ messages[0].content }}"},
    "raises": "{{ raise_exception('no users, please') }}",
    "no Jinja": "{% for m in messages %}{{ m.content }",
    "unknown attribute": "{{ messages[7].content.parts[0] }}",
    "divides by zero": "{{ messages | length // 0 }}",
    "calls what is no function": "{{ messages[0]('a') }}",
    "adds a number to a text": "{{ messages[0].content + 1 }}",
    "does not end": NESTED,
    "writes for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{{ messages }}{% endfor %}{% endfor %}",
    "takes all memory": "{{ 'a' * 10 ** 11 }}{{ messages[0].content }}",
    "huge power": "{{ 7 ** (7 ** 12) }}{{ messages[0].content }}",
    "leaves the message out": "{{ bos_token }}Assistant:",
    "iterates over letters": "{% for p in messages[0].content %}{% if p.type %}{{ p.text }}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_template_is_refused_in_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelab.models.template_process.SECONDS", 1.0)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = UNUSABLE[kind]
    start = time.monotonic()
    with pytest.raises(InvalidRequest, match=r"model: the chat template .*--chat-template never") as caught:
        check_template("model", tokenizer)
    assert time.monotonic() - start < 9
    assert "\n" not in str(caught.value)


def test_a_good_template_passes_and_renders() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    check_template("model", tokenizer)
    assert render(tokenizer, [{"role": "user", "content": "hello"}]) == "user: hello\n"
    model = LanguageModel("m", tiny_model("llama"), tokenizer)
    lm = PrunelabLM(model.model, tokenizer, max_length=64)
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + str(
        tokenizer.chat_template
    )
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    assert lm.apply_chat_template(messages) == "user: hello\n"


@pytest.mark.parametrize("kind", ["does not end", "raises", "named, none is default"])
def test_the_command_refuses_before_weights_are_read(
    kind: str, miniature: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    tiny_model("llama").config.save_pretrained(tmp_path / "m")  # and no weights
    fields = json.loads((tmp_path / "m" / "config.json").read_text())
    fields["architectures"] = ["LlamaForCausalLM"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(fields))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = UNUSABLE[kind]
    tokenizer.save_pretrained(tmp_path / "m")
    ran = command(
        "evaluate", tmp_path / "m", "--benchmark", "arc_easy", "--chat-template", "always", "--datasets-root", miniature
    )
    assert ran.code == 2
    assert "m: the chat template" in ran.err
