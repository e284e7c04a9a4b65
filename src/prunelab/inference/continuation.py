"""The text of generated tokens: decoded together with what stands before them, the only place where that is done.

Tokenizers of SentencePiece's kind (Llama 1 and 2, Mistral, LLaVA) take the first space of whatever they decode away,
because the normaliser put one in front of the text. Decoded alone, a completion would lose the first column of its
indentation, or the space between prompt and first word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ANCHOR = 16
"""Tokens of the prompt that are decoded with a continuation: one would do unless it is a special token."""


def continuation_text(
    tokenizer: Any, before: Sequence[int], ids: Sequence[int], *, skip_special_tokens: bool = True
) -> str:
    """The text that token ids add to what stands before them.

    Args:
        tokenizer: of transformers.
        before: the ids before them; the last `ANCHOR` are looked at, all where these have no text.
        ids: the continuation.
        skip_special_tokens: leave special tokens out of the text.
    """

    def decoded(tokens: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens) if len(tokens) else ""
        return text

    anchor = before[-ANCHOR:]
    ahead = decoded(anchor)
    if not ahead and len(before) > len(anchor):
        anchor = before
        ahead = decoded(anchor)
    whole = decoded([*anchor, *ids])
    if whole.startswith(ahead):
        return whole[len(ahead) :]
    # The prompt ends within a character, or clean-up joins two words: less than all of it is found again.
    return whole[next((i for i, (a, b) in enumerate(zip(ahead, whole, strict=False)) if a != b), len(whole)) :]


def takes_first_space(tokenizer: Any) -> bool:
    """Whether a tokenizer takes the first space of what it decodes away; told from a short text."""
    ids: list[int] = tokenizer("a b", add_special_tokens=False, verbose=False)["input_ids"]
    cuts = range(1, len(ids))
    return any(continuation_text(tokenizer, ids[:cut], ids[cut:]) == f" {tokenizer.decode(ids[cut:])}" for cut in cuts)


def last_text(tokenizer: Any, before: Sequence[int], ids: Sequence[int], tokens: int) -> str:
    """The text of the last `tokens` generated ids, special tokens included, in which stop strings are looked for.

    Args:
        tokenizer: of transformers.
        before: the ids of the prompt's end.
        ids: all that was generated.
        tokens: how many of the last ones count.
    """
    if len(ids) <= tokens:
        return continuation_text(tokenizer, before, ids, skip_special_tokens=False)
    return continuation_text(tokenizer, ids[-tokens - 1 : -tokens], ids[-tokens:], skip_special_tokens=False)
