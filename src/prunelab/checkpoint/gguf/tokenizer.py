"""A tokenizer in llama.cpp's form: tokens, their types, and scores or merges.

Two kinds of tokenizer are supported: byte-level BPE, whose pre-tokenizer `pretokenizer.py` recognises, and BPE over
characters with byte fallback, as converted from SentencePiece (Llama 1 and 2, Mistral, Gemma).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any

from prunelab.checkpoint.gguf.merging import merged_by_llama_cpp_alone, unreachable
from prunelab.checkpoint.gguf.pretokenizer import SPACE, PreTokenizer, pre_tokenizer_of
from prunelab.checkpoint.gguf.special_texts import TAKEN_AS_SPECIAL
from prunelab.errors import UnsupportedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunelab.models.loading import LanguageModel


class Kind(IntEnum):
    """The type of a token, in llama.cpp's numbers."""

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
        model: `gpt2` for byte-level BPE, `llama` for BPE with byte fallback.
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: every token, by id.
        kinds: the type of every token.
        scores: for `llama`: pieces whose merged token has a higher score are merged first.
        merges: for `gpt2`: pairs in order of rank.
        adds_begin: whether the start token is added before a text.
        adds_end: whether the end token is added after a text.
        adds_space: whether a space is added before a text.
        normalizes: whether the tokenizer normalises texts to NFC, which llama.cpp does not.
        special_to_llama_cpp: ordinary tokens that llama.cpp treats as special because of their text.
        notes: notes for the user.
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
    normalizes: bool = False
    special_to_llama_cpp: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def vocabulary_of(model: LanguageModel, *, allow_other_tokens: bool = False) -> Vocabulary:
    """Translate the model's tokenizer, with one token for each row of the embedding.

    Args:
        model: the model.
        allow_other_tokens: whether to accept a tokenizer whose tokens llama.cpp is known to change in some texts.

    Raises:
        UnsupportedModel: llama.cpp does not support the tokenizer, or it has more tokens than the embedding has rows.
    """
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel(
            f"{model.name}'s tokenizer has no tokenizer.json, which the GGUF export reads: serve this model with "
            "transformers"
        )
    document = json.loads(backend.to_str())
    core, added = document["model"], {token["id"]: token for token in document["added_tokens"]}
    learned = [token for token, index in core["vocab"].items() if index not in added] if "merges" in core else []
    pre = pre_tokenizer_of(model.name, document, needs_whole_words=bool(unreachable(core, learned)))
    adds_begin, adds_end = _adds(model)
    tokens, kinds = _tokens(model, pre, core, added)
    deviations = [*pre.deviations, *_deviations_of_added(backend, added.values())]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    if pre.model == "gpt2":
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in core["merges"]]
        if not merges:
            raise UnsupportedModel(
                f"{model.name}'s tokenizer has no merges, and llama.cpp does not load such a vocabulary: serve this "
                "model with transformers"
            )
    else:
        _check_bytes(model.name, core["vocab"])
        scores = _scores(tokens, core["merges"])
        deviations += merged_by_llama_cpp_alone(core, learned)
    if deviations and not allow_other_tokens:
        raise UnsupportedModel(
            f"llama.cpp tokenizes some texts differently from {model.name}'s tokenizer ({'; '.join(deviations)}): "
            "serve this model with transformers, or give --allow-other-tokens to write the file anyway"
        )
    notes = [f"llama.cpp tokenizes some texts differently: {deviation}" for deviation in deviations]
    if pre.normalizes:
        notes.append(
            "llama.cpp does not normalise texts to NFC as the tokenizer does: it tokenizes letters with separate "
            "accents differently"
        )
    special = tuple(
        token for token, kind in zip(tokens, kinds, strict=True) if kind == Kind.NORMAL and token in TAKEN_AS_SPECIAL
    )
    if special:
        notes.append(
            f"llama.cpp treats {', '.join(special)} in a text as a special token, and the tokenizer treats it as "
            "ordinary text"
        )
    return Vocabulary(
        pre.model, pre.pre, tokens, kinds, scores, merges, adds_begin, adds_end, pre.adds_space, pre.normalizes,
        special, tuple(notes),
    )  # fmt: skip


def chat_templates_of(tokenizer: PreTrainedTokenizerBase) -> tuple[Mapping[str, str], Sequence[str]]:
    """The tokenizer's chat templates by their names in a GGUF file, and notes for the user.

    A single template is called `default`, which llama.cpp selects by itself; several templates have names, and
    llama.cpp selects `tool_use` for requests with tools. Names in a GGUF file consist of letters, digits and
    underscores.
    """
    given = tokenizer.chat_template or {}
    given = {"default": given} if isinstance(given, str) else given
    templates: dict[str, str] = {}
    notes = []
    for name, template in given.items():
        plain = "".join(letter if letter in ascii_letters + digits else "_" for letter in name)
        if not plain or plain in templates:
            notes.append(f"the chat template {name!r} is left out: its GGUF name {plain!r} is already in use or empty")
        else:
            templates[plain] = template
    if templates and "default" not in templates:
        notes.append(
            f"no chat template is called default (the file has {', '.join(templates)}): start llama-server with "
            "--chat-template-file"
        )
    return templates, notes


def _tokens(
    model: LanguageModel, pre: PreTokenizer, core: Mapping[str, Any], added: Mapping[int, Mapping[str, Any]]
) -> tuple[list[str], list[Kind]]:
    """The token and type of every row; rows without a token get an unused name."""
    rows = model.model.get_input_embeddings().weight.shape[0]
    known = {index: token for token, index in model.tokenizer.get_vocab().items()}
    count = max(known, default=-1) + 1
    if count > rows:
        raise UnsupportedModel(
            f"{model.name}'s tokenizer has {count} tokens and its embedding {rows} rows: put the model's own tokenizer "
            "beside the weights"
        )
    taken = set(known.values())
    tokens, kinds = [], []
    for index in range(rows):
        token = known.get(index)
        kinds.append(Kind.UNUSED if token is None else _kind(index, token, added, core))
        if token is None:
            token = f"[PAD{index}]"
            while token in taken:
                token = f"[{token}]"
        elif index in added and pre.model == "llama" and added[index]["normalized"]:
            token = token.replace(SPACE, " ")  # it is matched in a text whose spaces are already replaced by symbols
        tokens.append(token)
    return tokens, kinds


def _deviations_of_added(backend: Any, added: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe options of added tokens that a GGUF file cannot represent."""
    clauses = []
    for token in added:
        options = [option for option in ("lstrip", "rstrip", "single_word") if token[option]]
        changed = token["normalized"] and backend.normalizer is not None
        changed = changed and backend.normalizer.normalize_str(token["content"]) not in (
            token["content"],
            token["content"].replace(" ", SPACE),
        )
        options += ["normalized"] if changed else []
        if options:
            clauses.append(f"the added token {token['content']!r} is matched with {' and '.join(options)}")
    return clauses[:5] + ([f"and {len(clauses) - 5} more"] if len(clauses) > 5 else [])


def _check_bytes(name: str, vocabulary: Mapping[str, int]) -> None:
    missing = [byte for byte in (f"<0x{value:02X}>" for value in range(256)) if byte not in vocabulary]
    if missing:
        raise UnsupportedModel(
            f"{name}'s tokenizer has byte fallback and lacks a token for {len(missing)} of 256 bytes (the first is "
            f"{missing[0]}), which llama.cpp needs: serve this model with transformers"
        )


def _kind(index: int, token: str, added: Mapping[int, Mapping[str, Any]], core: Mapping[str, Any]) -> Kind:
    if index in added and token == core.get("unk_token") and core.get("byte_fallback"):
        return Kind.UNKNOWN
    if core.get("byte_fallback") and len(token) == len("<0x00>") and token.startswith("<0x"):
        return Kind.BYTE
    if index in added:
        return Kind.CONTROL if added[index]["special"] else Kind.USER_DEFINED
    return Kind.NORMAL


def _scores(tokens: Sequence[str], merges: Sequence[Any]) -> list[float]:
    """The negated rank of each token's first merge; tokens without a merge have the lowest score."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _adds(model: LanguageModel) -> tuple[bool, bool]:
    """Whether the tokenizer adds the start token before a text and the end token after it.

    Raises:
        UnsupportedModel: it adds other tokens.
    """
    tokenizer = model.tokenizer
    plain = list(tokenizer("a", add_special_tokens=False).input_ids)
    encoded = list(tokenizer("a").input_ids)
    begin, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for adds_begin, adds_end in ((False, False), (True, False), (False, True), (True, True)):
        if encoded == begin * adds_begin + plain + end * adds_end:
            return adds_begin, adds_end
    raise UnsupportedModel(
        f"{model.name}'s tokenizer encodes 'a' as {tokenizer.convert_ids_to_tokens(encoded)}, and llama.cpp adds only "
        f"the start token ({tokenizer.bos_token!r}) before a text and the end token ({tokenizer.eos_token!r}) after "
        "it: correct the post-processor in its tokenizer.json"
    )
