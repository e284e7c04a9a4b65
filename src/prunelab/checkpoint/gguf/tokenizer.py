"""A tokenizer as llama.cpp wants it: tokens, their kinds, and scores or merges.

Two kinds are known: byte-level BPE, told by the pattern that cuts a text into words, and BPE over characters with
bytes to fall back on, which is what SentencePiece leaves behind (Llama 1 and 2, Mistral, Gemma).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from string import ascii_letters, digits
from typing import Any

from transformers import PreTrainedTokenizerBase

from prunelab.errors import UnsupportedModel
from prunelab.models.loading import LanguageModel

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD_PATTERNS = {
    _CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + r"\p{N}" + _REST: "qwen2",
}
"""llama.cpp's names for the patterns of Llama 3 and Qwen2; GPT-2's is built into the byte-level step."""

_NORMALIZERS = ("NFC", "Prepend", "Replace")
"""What may be done to a text before it is cut: SentencePiece's spaces; NFC, which leaves most texts as they are."""


class Kind(IntEnum):
    """What a token is, in llama.cpp's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer for llama.cpp.

    Attributes:
        model: `gpt2` for byte-level BPE, `llama` for characters with bytes to fall back on.
        pre: how a text is cut into words, in llama.cpp's names.
        tokens: every token, by id.
        kinds: what each is.
        scores: for `llama`: the higher, the sooner two pieces are merged to this token.
        merges: for `gpt2`: pairs, the first first.
        adds_begin: whether a text gets the start token in front.
        adds_end: whether a text gets the end token behind.
        adds_space: whether a text gets a space in front.
    """

    model: str
    pre: str
    tokens: Sequence[str]
    kinds: Sequence[Kind]
    scores: Sequence[float]
    merges: Sequence[str]
    adds_begin: bool
    adds_end: bool
    adds_space: bool


def vocabulary_of(model: LanguageModel) -> Vocabulary:
    """The model's tokenizer, one token for each row of its embeddings.

    Raises:
        UnsupportedModel: a tokenizer that llama.cpp does not compute, or one with more tokens than embeddings.
    """
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel(f"{model.name}'s tokenizer has no tokenizer.json to be written as GGUF from")
    whole = json.loads(backend.to_str())
    rows = model.model.get_input_embeddings().weight.shape[0]
    tokens = model.tokenizer.convert_ids_to_tokens(range(len(model.tokenizer)))
    if len(tokens) > rows:
        raise UnsupportedModel(f"{model.name} has {len(tokens)} tokens and only {rows} embeddings: mend its tokenizer")
    _check_normalizers(model.name, whole["normalizer"])
    core, added = whole["model"], {token["id"]: token for token in whole["added_tokens"]}
    kinds = [_kind(i, token, added, core) for i, token in enumerate(tokens)]
    tokens = [*tokens, *(f"[PAD{i}]" for i in range(len(tokens), rows))]
    kinds += [Kind.UNUSED] * (rows - len(kinds))
    adds_begin, adds_end = _adds(model)
    byte_level = _find(whole["pre_tokenizer"], "ByteLevel")
    if core["type"] == "BPE" and byte_level and not core.get("byte_fallback"):
        pre = _words(model.name, whole["pre_tokenizer"], byte_level)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in core["merges"]]
        if not merges:
            raise UnsupportedModel(f"{model.name}'s tokenizer merges nothing, and llama.cpp reads no such vocabulary")
        return Vocabulary("gpt2", pre, tokens, kinds, (), merges, adds_begin, adds_end, adds_space=False)
    if core["type"] == "BPE" and core.get("byte_fallback"):
        scores = _scores(tokens, core["merges"])
        return Vocabulary("llama", "default", tokens, kinds, scores, (), adds_begin, adds_end, _adds_space(whole))
    raise UnsupportedModel(
        f"{model.name}'s tokenizer is {core['type']}, which llama.cpp does not compute as it is: byte-level BPE and "
        "BPE with bytes to fall back on are written"
    )


def chat_templates_of(tokenizer: PreTrainedTokenizerBase) -> tuple[Mapping[str, str], Sequence[str]]:
    """The tokenizer's chat templates by the names that a GGUF file gives them, and what the user should know.

    A tokenizer with one template has a `default`, which llama.cpp takes by itself; one with several names them, and
    llama.cpp takes `tool_use` where tools are given. In a GGUF file names are of letters, digits and underscores.
    """
    given = tokenizer.chat_template or {}
    given = {"default": given} if isinstance(given, str) else given
    found: dict[str, str] = {}
    notes = []
    for name, template in given.items():
        plain = "".join(letter if letter in ascii_letters + digits else "_" for letter in name)
        if not plain or plain in found:
            notes.append(f"the chat template {name!r} is left out: in GGUF its name would be {plain!r}, as another's")
        else:
            found[plain] = template
    if found and "default" not in found:
        notes.append(
            f"there is no default among the chat templates: llama-server needs --chat-template-file; the file "
            f"has {', '.join(found)}"
        )
    return found, notes


def _check_normalizers(name: str, step: Mapping[str, Any] | None) -> None:
    steps = [] if step is None else step.get("normalizers", [step])
    others = [one["type"] for one in steps if one["type"] not in _NORMALIZERS]
    if others:
        raise UnsupportedModel(
            f"{name}'s tokenizer changes texts by {', '.join(others)} before it cuts them, which llama.cpp does not; "
            f"{', '.join(_NORMALIZERS)} are let through: serve this model with transformers"
        )


def _kind(index: int, token: str, added: Mapping[int, Mapping[str, Any]], core: Mapping[str, Any]) -> Kind:
    if token == core.get("unk_token"):
        return Kind.UNKNOWN
    if core.get("byte_fallback") and len(token) == len("<0x00>") and token.startswith("<0x"):
        return Kind.BYTE
    if index in added:
        return Kind.CONTROL if added[index]["special"] else Kind.USER_DEFINED
    return Kind.NORMAL


def _find(step: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any] | None:
    """The step of this kind in a tokenizer's chain of steps."""
    if step is None:
        return None
    for inner in step.get("pretokenizers") or step.get("normalizers") or [step]:
        if inner["type"] == kind:
            found: Mapping[str, Any] = inner
            return found
    return None


def _words(name: str, steps: Mapping[str, Any], byte_level: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts a text into words."""
    split = _find(steps, "Split")
    if byte_level.get("add_prefix_space"):
        raise UnsupportedModel(
            f"{name}'s tokenizer puts a space in front of texts, which GGUF does not say of its kind"
        )
    if split is None and byte_level.get("use_regex", True):
        return "gpt-2"
    pattern = (split or {}).get("pattern", {}).get("Regex", "")
    if pattern not in WORD_PATTERNS:
        raise UnsupportedModel(
            f"{name}'s tokenizer cuts words by a pattern that is not known to be one of llama.cpp's ({pattern!r}); "
            "those of GPT-2, Llama 3 and Qwen2 are"
        )
    return WORD_PATTERNS[pattern]


def _scores(tokens: Sequence[str], merges: Sequence[Any]) -> list[float]:
    """The rank of a token's first merge, negated; what no merge makes comes last."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _adds(model: LanguageModel) -> tuple[bool, bool]:
    """Whether a text gets a start token in front and an end token behind."""
    ids = model.tokenizer("a").input_ids
    return ids[0] == model.tokenizer.bos_token_id, ids[-1] == model.tokenizer.eos_token_id


def _adds_space(whole: Mapping[str, Any]) -> bool:
    metaspace = _find(whole["pre_tokenizer"], "Metaspace")
    if metaspace is not None:
        return bool(metaspace.get("prepend_scheme", "always") != "never")
    return _find(whole["normalizer"], "Prepend") is not None
