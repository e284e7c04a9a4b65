"""A tokenizer as llama.cpp wants it: tokens, their kinds, and scores or merges.

Two kinds are known: byte-level BPE, whose pre-tokenizer `pretokenizer.py` recognises, and BPE over characters with
bytes to fall back on, which is what SentencePiece leaves behind (Llama 1 and 2, Mistral, Gemma).
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
        normalizes: whether the tokenizer normalises texts to NFC, which llama.cpp does not.
        special_to_llama_cpp: ordinary tokens that llama.cpp takes for special ones by their text.
        notes: what the user should know.
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
    """The model's tokenizer, one token for each row of its embeddings.

    Args:
        model: the model.
        allow_other_tokens: whether a tokenizer passes of which llama.cpp is known to read some texts otherwise.

    Raises:
        UnsupportedModel: a tokenizer that llama.cpp does not compute, or one with more tokens than embeddings.
    """
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel(f"{model.name}'s tokenizer has no tokenizer.json to be written as GGUF from")
    whole = json.loads(backend.to_str())
    core, added = whole["model"], {token["id"]: token for token in whole["added_tokens"]}
    learned = [token for token, index in core["vocab"].items() if index not in added] if "merges" in core else []
    pre = pre_tokenizer_of(model.name, whole, needs_whole_words=bool(unreachable(core, learned)))
    adds_begin, adds_end = _adds(model)
    tokens, kinds = _tokens(model, pre, core, added)
    deviations = [*pre.deviations, *_deviations_of_added(backend, added.values())]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    if pre.model == "gpt2":
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in core["merges"]]
        if not merges:
            raise UnsupportedModel(f"{model.name}'s tokenizer merges nothing, and llama.cpp reads no such vocabulary")
    else:
        _check_bytes(model.name, core["vocab"])
        scores = _scores(tokens, core["merges"])
        deviations += merged_by_llama_cpp_alone(core, learned)
    if deviations and not allow_other_tokens:
        raise UnsupportedModel(
            f"llama.cpp reads some texts as other tokens than {model.name}'s tokenizer: {'; '.join(deviations)}; "
            "serve this model with transformers, or give --allow-other-tokens to write it as it is"
        )
    notes = [f"llama.cpp reads other tokens: {deviation}" for deviation in deviations]
    if pre.normalizes:
        notes.append(
            "llama.cpp does not normalise texts to NFC as the tokenizer does: letters with separate accents are other "
            "tokens there"
        )
    special = tuple(
        token for token, kind in zip(tokens, kinds, strict=True) if kind == Kind.NORMAL and token in TAKEN_AS_SPECIAL
    )
    if special:
        notes.append(
            f"llama.cpp takes {', '.join(special)} in a text for a special token, which to the tokenizer is an "
            "ordinary one"
        )
    return Vocabulary(
        pre.model, pre.pre, tokens, kinds, scores, merges, adds_begin, adds_end, pre.adds_space, pre.normalizes,
        special, tuple(notes),
    )  # fmt: skip


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


def _tokens(
    model: LanguageModel, pre: PreTokenizer, core: Mapping[str, Any], added: Mapping[int, Mapping[str, Any]]
) -> tuple[list[str], list[Kind]]:
    """Every row's token and kind; rows without a token get a name that no token has."""
    rows = model.model.get_input_embeddings().weight.shape[0]
    known = {index: token for token, index in model.tokenizer.get_vocab().items()}
    count = max(known, default=-1) + 1
    if count > rows:
        raise UnsupportedModel(f"{model.name} has {count} tokens and only {rows} embeddings: mend its tokenizer")
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
            token = token.replace(SPACE, " ")  # it is looked for in a text whose spaces are marks already
        tokens.append(token)
    return tokens, kinds


def _deviations_of_added(backend: Any, added: Iterable[Mapping[str, Any]]) -> list[str]:
    """Options of added tokens that a GGUF file cannot say."""
    found = []
    for token in added:
        options = [option for option in ("lstrip", "rstrip", "single_word") if token[option]]
        changed = token["normalized"] and backend.normalizer is not None
        changed = changed and backend.normalizer.normalize_str(token["content"]) not in (
            token["content"],
            token["content"].replace(" ", SPACE),
        )
        options += ["normalized"] if changed else []
        if options:
            found.append(f"the added token {token['content']!r} is matched with {' and '.join(options)}")
    return found[:5] + ([f"and {len(found) - 5} more"] if len(found) > 5 else [])


def _check_bytes(name: str, vocabulary: Mapping[str, int]) -> None:
    missing = [byte for byte in (f"<0x{value:02X}>" for value in range(256)) if byte not in vocabulary]
    if missing:
        raise UnsupportedModel(
            f"{name}'s tokenizer falls back on bytes and has no token for {len(missing)} of them ({missing[0]} is "
            "the first), which llama.cpp needs: serve this model with transformers"
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
    """The rank of a token's first merge, negated; what no merge makes comes last."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _adds(model: LanguageModel) -> tuple[bool, bool]:
    """Whether a text gets the begin token in front and the end token behind.

    Raises:
        UnsupportedModel: it gets other tokens, or more of them.
    """
    tokenizer = model.tokenizer
    plain = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole = list(tokenizer("a").input_ids)
    begin, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for adds_begin, adds_end in ((False, False), (True, False), (False, True), (True, True)):
        if whole == begin * adds_begin + plain + end * adds_end:
            return adds_begin, adds_end
    raise UnsupportedModel(
        f"{model.name}'s tokenizer reads 'a' as {tokenizer.convert_ids_to_tokens(whole)}, and llama.cpp adds nothing "
        f"but the begin token ({tokenizer.bos_token!r}) in front and the end token ({tokenizer.eos_token!r}) behind: "
        "mend its post-processor"
    )
