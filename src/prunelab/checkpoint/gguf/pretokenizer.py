"""Translate a tokenizer's normalizer and pre-tokenizer into llama.cpp's.

llama.cpp identifies a pre-tokenizer by name (`tokenizer.ggml.pre`); the name stands for regular expressions applied one
after another (`llm_tokenizer_bpe` in `src/llama-vocab.cpp`, build 11549), and llama.cpp normalises nothing but spaces.
A tokenizer.json holds a sequence of steps. A step without a counterpart in llama.cpp is refused by name, because a file
with the wrong pre-tokenizer loads without an error and yields other tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from prunelab.errors import UnsupportedModel

Step = Mapping[str, Any]

SPACE = "▁"
"""SentencePiece's space symbol, U+2581."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The built-in pattern of the step `ByteLevel`."""
DIGIT = r"\p{N}"
"""The pattern of the step `Digits`: each digit, or with `+` each run of digits."""
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_ENDS}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_ENDS}"
)


def _cased_words(contractions: str, digits: str) -> str:
    """GPT-4o's pattern, which splits words between lower and upper case."""
    return (
        rf"{_BEFORE}{_UPPER}*{_LOWER}+{contractions}|{_BEFORE}{_UPPER}+{_LOWER}*{contractions}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_ENDS}"
    )


LLAMA3 = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}{_REST}"

PRE_TOKENIZERS: Mapping[tuple[str, ...], str] = {
    (GPT2,): "gpt-2",
    (DIGIT, GPT2): "smollm",
    (LLAMA3,): "llama-bpe",
    (rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{_REST}",): "qwen2",
    (rf"{_CONTRACTIONS}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_ENDS}",): "qwen35",
    (_cased_words("", r"\p{N}"),): "tekken",
    (_cased_words(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),): "gpt-4o",
    (rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_ENDS}",): "seed-coder",
    (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", DIGIT): "deepseek-coder",
    (r"\p{N}{1,3}", _CJK, _DEEPSEEK3): "deepseek-v3",
}
"""llama.cpp's names of pre-tokenizers, by their sequence of patterns.

One name stands for all pre-tokenizers with the same patterns: `gpt-2` also for mpt and olmo, `smollm` also for
starcoder, refact and command-r.
"""

_TAKES_WORDS_WHOLE = ("llama-bpe", "tekken")
"""Pre-tokenizers with which llama.cpp keeps a word that is a token whole (`ignore_merges`)."""
_BY_MERGES_ALONE = {"llama-bpe": "smaug-bpe"}
"""Names for the same patterns without `ignore_merges`."""


@dataclass(frozen=True)
class PreTokenizer:
    """llama.cpp's counterpart of a tokenizer's normalizer and pre-tokenizer.

    Attributes:
        model: `gpt2` for byte-level BPE, `llama` for BPE with byte fallback.
        pre: llama.cpp's name of the pre-tokenizer.
        adds_space: whether a space is added before a text, and after a special token (`llama` only).
        normalizes: whether the tokenizer normalises texts to NFC, which llama.cpp does not.
        deviations: known kinds of text that llama.cpp tokenizes differently, each as a clause.
    """

    model: str
    pre: str
    adds_space: bool = False
    normalizes: bool = False
    deviations: tuple[str, ...] = ()


def pre_tokenizer_of(name: str, tokenizer: Mapping[str, Any], *, needs_whole_words: bool) -> PreTokenizer:
    """Find llama.cpp's counterpart of a tokenizer's steps before BPE.

    Args:
        name: the model's name in error messages.
        tokenizer: a parsed tokenizer.json.
        needs_whole_words: whether merges cannot produce some token, so that `ignore_merges` matters.

    Raises:
        UnsupportedModel: llama.cpp does not compute a step; names it.
    """
    normalizers, steps = (
        _flat(tokenizer["normalizer"], "normalizers"),
        _flat(tokenizer["pre_tokenizer"], "pretokenizers"),
    )
    normalizes = bool(normalizers) and normalizers[0]["type"] == "NFC"
    normalizers = normalizers[normalizes:]
    core = tokenizer["model"]
    _check_model(name, core)
    if steps and steps[-1]["type"] == "ByteLevel" and not core.get("byte_fallback"):
        _refuse_steps(name, "normalizer", normalizers)
        return PreTokenizer("gpt2", _byte_level(name, steps, core, needs_whole_words), normalizes=normalizes)
    if core.get("byte_fallback"):
        if core.get("ignore_merges") and needs_whole_words:
            raise _unknown(name, "the BPE option ignore_merges with byte_fallback")
        adds_space, deviations = _sentencepiece(name, normalizers, steps, core["vocab"])
        return PreTokenizer("llama", "default", adds_space, normalizes, deviations)
    raise _unknown(
        name,
        f"pre-tokenizer {' and '.join(_text(step) for step in steps) or 'none'} before a BPE without byte_fallback, "
        "where ByteLevel must be the last step",
    )


def _flat(step: Step | None, inner: str) -> list[Step]:
    """The steps of a sequence in order, with nested sequences flattened."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [leaf for child in step[inner] for leaf in _flat(child, inner)]
    return [step]


def _check_model(name: str, core: Step) -> None:
    if core["type"] != "BPE":
        raise UnsupportedModel(
            f"{name}'s tokenizer is {core['type']}, and only byte-level BPE and BPE with byte fallback can be exported "
            "to GGUF: serve this model with transformers"
        )
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if core.get(option):
            raise _unknown(name, f"the BPE option {option}={core[option]!r}")


def _byte_level(name: str, steps: Sequence[Step], core: Step, needs_whole_words: bool) -> str:
    """llama.cpp's name for the steps of a byte-level tokenizer."""
    byte_level = steps[-1]
    if byte_level.get("add_prefix_space"):
        raise _unknown(name, "ByteLevel(add_prefix_space=true), which adds a space before texts")
    patterns = [_pattern(name, step) for step in steps[:-1]]
    if byte_level.get("use_regex", True):
        patterns.append(GPT2)
    pre = PRE_TOKENIZERS.get(tuple(patterns))
    if core.get("unk_token") and not set(ByteLevel.alphabet()) <= set(core["vocab"]):
        raise _unknown(name, f"no token for some bytes, with the BPE option unk_token={core['unk_token']!r}")
    if pre is None:
        raise _unknown(name, f"pre-tokenizer {', then '.join(_text(step) for step in steps)}")
    whole_words = bool(core.get("ignore_merges"))
    if not needs_whole_words or whole_words == (pre in _TAKES_WORDS_WHOLE):
        return pre
    if not whole_words and pre in _BY_MERGES_ALONE:
        return _BY_MERGES_ALONE[pre]
    raise _unknown(name, f"the BPE option ignore_merges={json.dumps(whole_words)} with llama.cpp's pre-tokenizer {pre}")


def _pattern(name: str, step: Step) -> str:
    """The regular expression of a step that isolates each match as a word."""
    if step["type"] == "Digits":
        return DIGIT if step.get("individual_digits") else f"{DIGIT}+"
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
        pattern: str | None = step["pattern"].get("Regex")
        if pattern is not None:
            return pattern
    raise _unknown(name, f"pre-tokenizer {_text(step)}")


def _sentencepiece(
    name: str, normalizers: Sequence[Step], steps: Sequence[Step], vocabulary: Iterable[str]
) -> tuple[bool, tuple[str, ...]]:
    """Whether a SentencePiece-style tokenizer adds a space before a text, and how llama.cpp deviates."""
    texts = [_text(step) for step in normalizers]
    replaces, prepends = _text(_REPLACE), _text(_PREPEND)
    if any(text not in (replaces, prepends) for text in texts) or len(set(texts)) < len(texts):
        _refuse_steps(name, "normalizer", [step for step in normalizers if _text(step) not in (replaces, prepends)])
        raise _unknown(name, f"normalizer {', then '.join(texts)}")
    if replaces in texts and all(step["type"] == "Split" and _at_spaces(step) for step in steps):
        return prepends in texts, ()  # no space is left to split at
    if not normalizers and len(steps) == 1 and steps[0]["type"] == "Metaspace" and steps[0]["replacement"] == SPACE:
        return _metaspace(name, steps[0], vocabulary)
    raise _unknown(
        name,
        f"normalizer {', then '.join(texts) or 'none'} with pre-tokenizer "
        f"{', then '.join(_text(step) for step in steps) or 'none'}",
    )


_REPLACE: Step = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND: Step = {"type": "Prepend", "prepend": SPACE}


def _metaspace(name: str, step: Step, vocabulary: Iterable[str]) -> tuple[bool, tuple[str, ...]]:
    inside = next((token for token in vocabulary if SPACE in token[1:]), None) if step.get("split", True) else None
    if inside is not None:
        raise _unknown(name, f"pre-tokenizer {_text(step)} and tokens that contain a space ({inside!r})")
    scheme = step.get("prepend_scheme", "always")
    if scheme == "never":
        return False, ()
    deviations = ["it adds a further space before a text that begins with a space"]
    if scheme == "first":
        deviations.append("it adds a space before text that follows a special token")
    return True, tuple(deviations)


def _at_spaces(step: Step) -> bool:
    return step["pattern"] in ({"String": " "}, {"Regex": " "})


def _refuse_steps(name: str, kind: str, steps: Sequence[Step]) -> None:
    if steps:
        raise _unknown(name, f"{kind} {', then '.join(_text(step) for step in steps)}")


def _unknown(name: str, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{name}'s tokenizer has {what}, which llama.cpp does not support, so that its tokens would differ: serve this "
        "model with transformers"
    )


def _text(step: Step) -> str:
    """A step as text: its type and options."""
    options = {key: value for key, value in step.items() if key not in ("type", "trim_offsets")}
    if "pattern" in options:
        options["pattern"] = next(iter(options["pattern"].values()))
    given = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items())
    text = f"{step['type']}({given})"
    return text if len(text) <= 400 else text[:400] + "…"
