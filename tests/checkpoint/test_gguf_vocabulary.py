"""A tokenizer of every kind is written so that llama.cpp reads its tokens, or refused by the step in the way."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Ran, make_tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import LlamaCpp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from prunelab.checkpoint.gguf import token_comparison
from prunelab.checkpoint.gguf.awkward_texts import AWKWARD_TEXTS
from prunelab.checkpoint.gguf.export import export_gguf
from prunelab.checkpoint.gguf.pretokenizer import DIGIT, GPT2, LLAMA3, PRE_TOKENIZERS
from prunelab.checkpoint.gguf.tokenizer import Kind, Vocabulary, vocabulary_of
from prunelab.errors import UnsupportedModel
from prunelab.models.loading import LanguageModel

pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="no llama.cpp: pip install xllamacpp"
)

SPECIAL = ("<s>", "</s>", "<|turn|>")
TEXTS = [
    *AWKWARD_TEXTS,
    "The 12 quick brown foxes of 1999 don't jump over 3 lazy dogs.",
    "  indented\n\n\n    code = [1, 22, 333, 4444]\t# done",
    "über Käse, naïve façade; la niña y el pingüino",
]
Change = Callable[[Tokenizer], None]


def isolated(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(*steps: Any, use_regex: bool = False, prefix: bool = False) -> Any:
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)
    return pre_tokenizers.Sequence([*steps, last]) if steps else last


def from_patterns(patterns: Sequence[str]) -> Any:
    """The steps of which these are the patterns, as the published tokenizers write them."""
    inner = [
        pre_tokenizers.Digits(individual_digits=True) if p == DIGIT else isolated(p) for p in patterns if p != GPT2
    ]
    return byte_level(*inner, use_regex=patterns[-1] == GPT2)


def trained(pre_tokenizer: Any, normalizer: Any = None, *, size: int = 900, ignore_merges: bool = False) -> Tokenizer:
    """A byte-level tokenizer with merges across all borders of words: where a text is split shows in its tokens."""
    core = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    core.pre_tokenizer, core.decoder = byte_level(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False, max_token_length=4,
    )  # fmt: skip
    core.train_from_iterator(TEXTS * 2, trainer)
    core.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        core.normalizer = normalizer
    return core


def sentencepiece(
    normalizer: Any = None, pre_tokenizer: Any = None, words: Iterable[str] = ("▁the", "▁of", "12", "▁▁", "don", "aa")
) -> Tokenizer:
    """As SentencePiece's models are converted: every pair whose union is a token is a merge, by the token's rank."""
    letters = ["▁", *map(chr, range(33, 127)), "é", "ü", "日"]
    longer = sorted(
        {word[:end] for word in words for end in range(2, len(word) + 1)}, key=lambda word: (len(word), word)
    )
    tokens = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *longer]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    cuts = [(word[:cut], word[cut:]) for word in longer for cut in range(1, len(word))]
    merges = [cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary]
    core = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if normalizer is not None:
        core.normalizer = normalizer
    if pre_tokenizer is not None:
        core.pre_tokenizer = pre_tokenizer
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens(list(SPECIAL))
    return core


TO_MARKS = normalizers.Replace(" ", "▁")
LLAMA2 = normalizers.Sequence([normalizers.Prepend("▁"), TO_MARKS])


def with_tokenizer(core: Tokenizer, rows: int = 0) -> LanguageModel:
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    size = max(core.get_vocab().values()) + 1
    return replace(make_tiny("llama", vocab_size=rows or size + 3).model, tokenizer=tokenizer)


def assert_equal(model: LanguageModel, path: Path, texts: Iterable[str] = TEXTS) -> Vocabulary:
    assert not export_gguf(model, path, "f32").notes
    theirs = LlamaCpp(path)
    for text in texts:
        assert theirs.tokens(text) == model.tokenizer(text).input_ids, text
    return vocabulary_of(model)


APPROXIMATED = {"tekken": r"'e\u0301'", "gpt-4o": r"'e\u0301'", "deepseek-coder": r"u3000wide"}
"""A text that llama.cpp reads otherwise than the published tokenizer under a name.

In the first two it tells upper from lower case by ASCII alone and knows no combining marks; in the third a wide space
stays with the word behind it. Which texts are concerned depends on the merges.
"""


@needs_llama_cpp
@pytest.mark.parametrize("patterns", PRE_TOKENIZERS, ids=PRE_TOKENIZERS.values())
def test_every_name_gives_equal_tokens_or_is_refused(patterns: tuple[str, ...], tmp_path: Path) -> None:
    model, path = with_tokenizer(trained(from_patterns(patterns))), tmp_path / "x.gguf"
    name = vocabulary_of(model).pre
    assert name == PRE_TOKENIZERS[patterns]
    if name not in APPROXIMATED:
        assert_equal(model, path)
        return
    with pytest.raises(UnsupportedModel, match=f"llama.cpp tokenizes .* differently .*{APPROXIMATED[name]}"):
        export_gguf(model, path)
    assert not list(tmp_path.iterdir())
    done = export_gguf(model, path, allow_other_tokens=True)
    assert path.exists()
    assert "texts differently" in done.notes[-1]


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        (byte_level(isolated(GPT2)), "gpt-2"),
        (byte_level(isolated(DIGIT), use_regex=True), "smollm"),
        (byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(True)]), use_regex=True), "smollm"),
        (byte_level(pre_tokenizers.Digits(individual_digits=True), isolated(GPT2)), "smollm"),
    ],
)
def test_the_same_steps_written_otherwise(pre_tokenizer: Any, name: str) -> None:
    assert vocabulary_of(with_tokenizer(trained(pre_tokenizer))).pre == name


@pytest.mark.parametrize(
    ("pre_tokenizer", "text"),
    [
        (byte_level(pre_tokenizers.Digits(individual_digits=False), use_regex=True), "Digits(individual_digits=false)"),
        (byte_level(pre_tokenizers.Punctuation(), use_regex=True), "Punctuation("),
        (byte_level(isolated("a+"), use_regex=True), 'Split(pattern="a+"'),
        (byte_level(isolated(LLAMA3), use_regex=True), "ByteLevel(add_prefix_space=false, use_regex=true)"),
        (byte_level(pre_tokenizers.Digits(True), isolated(LLAMA3)), "Digits(individual_digits=true), then Split("),
        (byte_level(pre_tokenizers.Split(Regex(LLAMA3), "removed", invert=True)), 'behavior="Removed"'),
        (byte_level(pre_tokenizers.Split(" ", "isolated"), use_regex=True), 'Split(pattern=" "'),
        (byte_level(pre_tokenizers.Whitespace(), use_regex=True), "Whitespace()"),
        (byte_level(use_regex=False), "pre-tokenizer ByteLevel(add_prefix_space=false, use_regex=false)"),
        (byte_level(use_regex=True, prefix=True), "ByteLevel(add_prefix_space=true)"),
        (pre_tokenizers.Sequence([byte_level(use_regex=True), pre_tokenizers.Digits(True)]), "ByteLevel must be the"),
    ],
)  # fmt: skip
def test_steps_without_a_counterpart_are_refused_by_name(pre_tokenizer: Any, text: str) -> None:
    with pytest.raises(UnsupportedModel) as refusal:
        vocabulary_of(with_tokenizer(trained(pre_tokenizer)))
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("normalizer", "text"),
    [
        (normalizers.NFKC(), "NFKC()"),
        (normalizers.Sequence([normalizers.NFC(), normalizers.Strip()]), "Strip("),
        (normalizers.Replace(Regex(" {2,}"), " "), 'Replace(pattern=" {2,}", content=" ")'),
        (normalizers.Prepend(" "), 'Prepend(prepend=" ")'),
        (normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()]), "Lowercase(), then NFC()"),
    ],
)
def test_normalizers_without_a_counterpart_are_refused_by_name(normalizer: Any, text: str) -> None:
    for core in (trained(byte_level(use_regex=True), normalizer), sentencepiece(normalizer)):
        with pytest.raises(UnsupportedModel) as refusal:
            vocabulary_of(with_tokenizer(core))
        assert text in str(refusal.value)


def changed(core: Tokenizer, **options: Any) -> Tokenizer:
    """The tokenizer with other options of its BPE."""
    whole = json.loads(core.to_str())
    whole["model"].update(options)
    return Tokenizer.from_str(json.dumps(whole))


@pytest.mark.parametrize(
    "options", [{"dropout": 0.1}, {"continuing_subword_prefix": "##"}, {"end_of_word_suffix": "</w>"}]
)
def test_options_of_bpe_are_refused_by_name(options: dict[str, Any]) -> None:
    core = changed(trained(byte_level(use_regex=True), size=260), merges=[], **options)
    with pytest.raises(UnsupportedModel, match=next(iter(options))):
        vocabulary_of(with_tokenizer(core))


@needs_llama_cpp
@pytest.mark.parametrize(("whole_words", "name"), [(True, "llama-bpe"), (False, "smaug-bpe")])
def test_words_taken_whole_or_by_merges_alone(whole_words: bool, name: str, tmp_path: Path) -> None:
    """A token that no merge makes: whether it is read is `ignore_merges`, which llama.cpp ties to the name."""
    core = trained(from_patterns([LLAMA3]))
    whole = json.loads(core.to_str())["model"]
    core = changed(core, ignore_merges=whole_words, vocab={**whole["vocab"], "ĠxylophoneZ": len(whole["vocab"])})
    texts = [*TEXTS, "a xylophoneZ b", "xylophoneZ", "xylophoneZZ"]
    assert assert_equal(with_tokenizer(core), tmp_path / "x.gguf", texts).pre == name


def test_words_taken_whole_under_a_name_without_it() -> None:
    core = trained(byte_level(use_regex=True))
    vocabulary = json.loads(core.to_str())["model"]["vocab"]
    core = changed(core, ignore_merges=True, vocab={**vocabulary, "ĠxylophoneZ": len(vocabulary)})
    with pytest.raises(UnsupportedModel, match=r"ignore_merges=true with llama.cpp's pre-tokenizer gpt-2"):
        vocabulary_of(with_tokenizer(core))


@needs_llama_cpp
@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "adds_space"),
    [
        (LLAMA2, None, True),
        (normalizers.Sequence([TO_MARKS, normalizers.Prepend("▁")]), None, True),
        (TO_MARKS, None, False),
        (TO_MARKS, pre_tokenizers.Split(" ", "merged_with_previous"), False),
        (None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), False),
    ],
    ids=["llama-2", "llama-2-reversed", "marks", "gemma", "metaspace-never"],
)
def test_sentencepiece(normalizer: Any, pre_tokenizer: Any, adds_space: bool, tmp_path: Path) -> None:
    written = assert_equal(with_tokenizer(sentencepiece(normalizer, pre_tokenizer)), tmp_path / "x.gguf")
    assert (written.model, written.adds_space) == ("llama", adds_space)


@needs_llama_cpp
@pytest.mark.parametrize("scheme", ["always", "first"])
def test_a_space_that_llama_cpp_puts_elsewhere(scheme: Any, tmp_path: Path) -> None:
    """transformers reads `" a"` as one space, as SentencePiece did not; llama.cpp does as SentencePiece did."""
    model = with_tokenizer(sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)))
    with pytest.raises(UnsupportedModel, match=r"before a text that begins with a space.*--allow-other-tokens"):
        export_gguf(model, tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())
    notes = export_gguf(model, tmp_path / "x.gguf", allow_other_tokens=True).notes
    assert any("begins with a space" in note for note in notes)
    theirs = LlamaCpp(tmp_path / "x.gguf")
    for text in ("", "a", "the  12", "don't\n\nstop "):
        assert theirs.tokens(text) == model.tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("core", "text"),
    [
        (sentencepiece(), "normalizer none with pre-tokenizer none"),
        (sentencepiece(normalizers.Prepend("▁")), 'normalizer Prepend(prepend="▁") with'),
        (sentencepiece(TO_MARKS, pre_tokenizers.Digits(True)), "Digits(individual_digits=true)"),
        (sentencepiece(TO_MARKS, pre_tokenizers.Split("e", "isolated")), 'Split(pattern="e"'),
        (sentencepiece(LLAMA2, pre_tokenizers.Metaspace(split=False)), "Metaspace("),
        (sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="never", split=True)), "contain a space ('▁▁')"),
        (sentencepiece(None, pre_tokenizers.Metaspace("_", prepend_scheme="never", split=False)), 'replacement="_"'),
    ],
)  # fmt: skip
def test_other_ways_with_spaces_are_refused_by_name(core: Tokenizer, text: str) -> None:
    with pytest.raises(UnsupportedModel) as refusal:
        vocabulary_of(with_tokenizer(core))
    assert text in str(refusal.value)


def test_pairs_that_only_llama_cpp_merges() -> None:
    core = sentencepiece(TO_MARKS)
    merges = [pair for pair in json.loads(core.to_str())["model"]["merges"] if pair != ["d", "o"]]
    with pytest.raises(UnsupportedModel, match=r"merges 'd' and 'o' to 'do', and the tokenizer has no such merge"):
        vocabulary_of(with_tokenizer(changed(core, merges=merges)))


def test_bytes_without_a_token() -> None:
    core = sentencepiece(TO_MARKS)
    vocabulary = json.loads(core.to_str())["model"]["vocab"]
    vocabulary["not a byte"] = vocabulary.pop("<0x0A>")
    with pytest.raises(UnsupportedModel, match="lacks a token for 1 of 256 bytes"):
        vocabulary_of(with_tokenizer(changed(core, vocab=vocabulary)))


@needs_llama_cpp
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_added_tokens(kind: str, tmp_path: Path) -> None:
    core = trained(byte_level(use_regex=True)) if kind == "bytes" else sentencepiece(TO_MARKS)
    core.add_special_tokens(["<|pad|>"])
    core.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("    ", normalized=True)])
    model, texts = (
        with_tokenizer(core),
        ["a<tool>b <tool> c", "x<|pad|>y", "a    b     c         d", "<tool></s><|turn|>"],
    )
    written = assert_equal(model, tmp_path / "x.gguf", [*TEXTS, *texts])
    kinds = dict(zip(written.tokens, written.kinds, strict=True))
    assert (kinds["<|pad|>"], kinds["<tool>"], kinds["    "]) == (Kind.CONTROL, Kind.USER_DEFINED, Kind.USER_DEFINED)


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_options_of_added_tokens_are_refused_by_name(option: str) -> None:
    core = trained(byte_level(use_regex=True))
    core.add_tokens([AddedToken("<tool>", **{option: True})])
    with pytest.raises(UnsupportedModel, match=f"added token '<tool>' is matched with {option}"):
        vocabulary_of(with_tokenizer(core))
    assert option in vocabulary_of(with_tokenizer(core), allow_other_tokens=True).notes[0]


def test_an_added_token_that_is_matched_after_normalising() -> None:
    core = sentencepiece(LLAMA2)
    core.add_tokens([AddedToken("<tool>", normalized=True)])
    with pytest.raises(UnsupportedModel, match="'<tool>' is matched with normalized"):
        vocabulary_of(with_tokenizer(core))


@needs_llama_cpp
def test_an_ordinary_token_that_llama_cpp_takes_for_a_special_one(tmp_path: Path) -> None:
    core = trained(byte_level(use_regex=True))
    whole = json.loads(core.to_str())["model"]
    size = len(whole["vocab"])
    core = changed(
        core,
        vocab={**whole["vocab"], "<e": size, "os": size + 1, "<eos": size + 2, "<eos>": size + 3},
        merges=[*whole["merges"], ["<", "e"], ["o", "s"], ["<e", "os"], ["<eos", ">"]],
    )
    notes = export_gguf(with_tokenizer(core), tmp_path / "x.gguf").notes
    assert notes == (
        "llama.cpp treats <eos> in a text as a special token, and the tokenizer treats it as ordinary text",
    )


@needs_llama_cpp
def test_holes_and_rows_without_a_token(tmp_path: Path) -> None:
    core = trained(byte_level(use_regex=True))
    whole = json.loads(core.to_str())["model"]
    last = len(whole["vocab"])
    vocabulary = {**whole["vocab"], f"[PAD{last}]": last + 2}  # two holes, and a name that is taken
    model = with_tokenizer(changed(core, vocab=vocabulary), rows=last + 8)
    written = assert_equal(model, tmp_path / "x.gguf")
    assert len(written.tokens) == len(set(written.tokens)) == last + 8
    assert [i for i, kind in enumerate(written.kinds) if kind == Kind.UNUSED] == [
        last,
        last + 1,
        *range(last + 3, last + 8),
    ]


def test_a_token_behind_the_last_embedding() -> None:
    core = trained(byte_level(use_regex=True))
    vocabulary = json.loads(core.to_str())["model"]["vocab"]
    model = with_tokenizer(changed(core, vocab={**vocabulary, "far": 900}), rows=800)
    with pytest.raises(UnsupportedModel, match="901 tokens and its embedding 800 rows"):
        vocabulary_of(model)


@needs_llama_cpp
@pytest.mark.parametrize(
    ("template", "begin", "end"), [("$A", False, False), ("<s> $A </s>", True, True), ("$A </s>", False, True)]
)
def test_begin_and_end_tokens(template: str, begin: bool, end: bool, tmp_path: Path) -> None:
    core = trained(byte_level(use_regex=True))
    model = with_tokenizer(core)
    ids = [(token, core.token_to_id(token)) for token in ("<s>", "</s>")]
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=ids
    )
    written = assert_equal(model, tmp_path / "x.gguf")
    assert (written.adds_begin, written.adds_end) == (begin, end)


@pytest.mark.parametrize("template", ["<|turn|> $A", "<s> <|turn|> $A", "<s> $A <|turn|>", "</s> $A"])
def test_other_tokens_around_a_text_are_refused(template: str) -> None:
    core = trained(byte_level(use_regex=True))
    model = with_tokenizer(core)
    ids = [(token, core.token_to_id(token)) for token in SPECIAL]
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=ids
    )
    with pytest.raises(UnsupportedModel, match=r"llama.cpp adds only the start token"):
        vocabulary_of(model)


@needs_llama_cpp
def test_texts_are_compared_in_nfc(tmp_path: Path) -> None:
    model = with_tokenizer(trained(byte_level(use_regex=True), normalizers.NFC()))
    notes = export_gguf(model, tmp_path / "x.gguf").notes
    assert len(notes) == 1
    assert "does not normalise texts to NFC" in notes[0]


@needs_llama_cpp
def test_a_wrong_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were SmolLM's steps taken for GPT-2's, as they once were, nothing would be written."""
    patterns = {steps: "gpt-2" if name == "smollm" else name for steps, name in PRE_TOKENIZERS.items()}
    monkeypatch.setattr("prunelab.checkpoint.gguf.pretokenizer.PRE_TOKENIZERS", patterns)
    model = with_tokenizer(trained(from_patterns([DIGIT, GPT2])))
    with pytest.raises(
        UnsupportedModel, match=r"tokenizes \d+ of \d+ texts differently from tiny-llama's tokenizer"
    ) as refusal:
        export_gguf(model, tmp_path / "models" / "x.gguf")
    assert "--allow-other-tokens" in str(refusal.value)
    assert not list(tmp_path.iterdir())


@needs_llama_cpp
def test_a_vocabulary_that_llama_cpp_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "prunelab.checkpoint.gguf.pretokenizer.PRE_TOKENIZERS", dict.fromkeys(PRE_TOKENIZERS, "no-such-pre-tokenizer")
    )
    with pytest.raises(UnsupportedModel, match=r"cannot load tiny-llama's vocabulary .*no-such-pre-tokenizer"):
        export_gguf(with_tokenizer(trained(byte_level(use_regex=True))), tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_without_llama_cpp_the_result_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_comparison, "find_spec", lambda _: None)
    notes = export_gguf(with_tokenizer(trained(byte_level(use_regex=True))), tmp_path / "x.gguf").notes
    assert len(notes) == 1
    assert "llama.cpp is not installed, so its tokens were not compared" in notes[0]


@pytest.mark.parametrize(
    ("ran", "text"),
    [
        ({"returncode": 1, "stderr": "ImportError: no libgomp"}, "failed to run.*no libgomp"),
        (None, "failed to run.*took longer"),
    ],
)
def test_a_llama_cpp_that_does_not_run_is_a_note(
    ran: dict[str, Any] | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> SimpleNamespace:
        if ran is None:
            raise subprocess.TimeoutExpired(command, 1)
        return SimpleNamespace(**{"stdout": "", **ran})

    monkeypatch.setattr(token_comparison, "find_spec", lambda _: True)
    monkeypatch.setattr("prunelab.checkpoint.gguf.token_comparison.subprocess.run", run)
    token_comparison._read.cache_clear()
    notes = export_gguf(with_tokenizer(trained(byte_level(use_regex=True), size=300)), tmp_path / "x.gguf").notes
    token_comparison._read.cache_clear()
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(notes[0])


@needs_llama_cpp
def test_a_name_by_which_llama_cpp_would_strip_spaces(tmp_path: Path) -> None:
    model = with_tokenizer(trained(byte_level(use_regex=True)))
    assert_equal(replace(model, name="my-Phi-3-like"), tmp_path / "x.gguf", ["<|turn|>  a", "</s> b"])


@needs_llama_cpp
def test_the_command(command: Callable[..., Ran], tmp_path: Path) -> None:
    model = with_tokenizer(sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)))
    folder, out = tmp_path / "model", tmp_path / "x.gguf"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    ran = command("export", folder, "--out", out)
    assert (ran.code, out.exists()) == (2, False)
    assert "--allow-other-tokens" in ran.err
    ran = command("export", folder, "--out", out, "--allow-other-tokens")
    assert (ran.code, out.exists()) == (0, True)
    assert "follows a special token" in " ".join(ran.out.split())


@pytest.fixture(scope="module")
def input_projections(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[LanguageModel, LlamaCpp]]:
    """Exported tokenizers of the kinds that people use, each with a llama.cpp that holds it."""
    folder, found = tmp_path_factory.mktemp("gguf"), []
    cores = [trained(from_patterns(patterns)) for patterns, name in PRE_TOKENIZERS.items()
             if name in ("gpt-2", "smollm", "llama-bpe", "qwen2")]  # fmt: skip
    for index, core in enumerate([*cores, sentencepiece(LLAMA2), sentencepiece(TO_MARKS)]):
        model = with_tokenizer(core)
        export_gguf(model, folder / f"{index}.gguf", "f32")
        found.append((model, LlamaCpp(folder / f"{index}.gguf")))
    return found


LETTERS = st.characters(codec="utf-8", categories=("Ll", "Lu", "Nd", "Po", "Sm", "Zs"), max_codepoint=0x3FF)
PIECES = st.sampled_from(
    [*SPECIAL, " ", "  ", "\n", "\t", "\r\n", "'s", "'RE", "12", "1", "日本", "🙂", "don", "▁", "the"]
)


@needs_llama_cpp
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(LETTERS | PIECES, max_size=30).map("".join))
def test_made_up_texts(input_projections: list[tuple[LanguageModel, LlamaCpp]], text: str) -> None:
    for model, theirs in input_projections:
        assert theirs.tokens(text) == model.tokenizer(text).input_ids
