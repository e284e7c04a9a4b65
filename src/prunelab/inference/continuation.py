"""Text of generated tokens, decoded together with the tokens before them; the only function that decodes completions.

SentencePiece tokenizers (Llama 1 and 2, Mistral, LLaVA) strip the first space of the text that they decode, because
their normaliser adds one before the text. Decoded alone, a completion would lose the first column of its indentation,
or the space between the prompt and its first word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ANCHOR = 16
"""Number of prompt tokens that are decoded with a continuation; one is enough unless it is a special token."""


def continuation_text(
    tokenizer: Any, before: Sequence[int], ids: Sequence[int], *, skip_special_tokens: bool = True
) -> str:
    """The text that token ids add to the tokens before them.

    Args:
        tokenizer: a transformers tokenizer.
        before: ids before the continuation; the last `ANCHOR` are used, or all if these decode to no text.
        ids: ids of the continuation.
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
    joined = decoded([*anchor, *ids])
    if joined.startswith(ahead):
        return joined[len(ahead) :]
    # The prompt ends within a character, or clean-up joins two words: return the text after the longest common prefix.
    return joined[next((i for i, (a, b) in enumerate(zip(ahead, joined, strict=False)) if a != b), len(joined)) :]


def takes_first_space(tokenizer: Any) -> bool:
    """Whether a tokenizer strips the first space of decoded text; determined from a short text."""
    ids: list[int] = tokenizer("a b", add_special_tokens=False, verbose=False)["input_ids"]
    cuts = range(1, len(ids))
    return any(
        continuation_text(tokenizer, ids[:split], ids[split:]) == f" {tokenizer.decode(ids[split:])}" for split in cuts
    )


def last_text(tokenizer: Any, before: Sequence[int], ids: Sequence[int], tokens: int) -> str:
    """The text of the last `tokens` generated ids, special tokens included, for the search of stop strings.

    Args:
        tokenizer: a transformers tokenizer.
        before: last ids of the prompt.
        ids: all generated ids.
        tokens: number of ids to decode.
    """
    if len(ids) <= tokens:
        return continuation_text(tokenizer, before, ids, skip_special_tokens=False)
    return continuation_text(tokenizer, ids[-tokens - 1 : -tokens], ids[-tokens:], skip_special_tokens=False)
