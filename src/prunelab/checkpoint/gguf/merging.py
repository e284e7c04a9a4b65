"""Differences between the merges of a BPE tokenizer and the merging of llama.cpp."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tokenizers.models import BPE


def pairs_of(core: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json's model in order of rank."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in core.get("merges", ()))
    return [(left, right) for left, right in pairs]


def unreachable(core: Mapping[str, Any], tokens: Collection[str]) -> list[str]:
    """Tokens that no sequence of merges produces, so that only `ignore_merges` (whole words as tokens) yields them.

    Args:
        core: the model of a tokenizer.json.
        tokens: the tokens to check, without added tokens.
    """
    if core["type"] != "BPE":
        return []
    merged = {left + right for left, right in pairs_of(core)}
    longer = [token for token in tokens if len(token) > 1 and not _is_byte(core, token)]
    unmerged = [token for token in longer if token not in merged]
    if unmerged:
        return unmerged
    bpe = BPE(core["vocab"], pairs_of(core))
    return [token for token in longer if len(bpe.tokenize(token)) > 1]


def merged_by_llama_cpp_alone(core: Mapping[str, Any], tokens: Collection[str]) -> list[str]:
    """Describe a pair that llama.cpp merges although the tokenizer has no such merge; empty if there is none.

    For BPE with byte fallback llama.cpp has scores of tokens instead of merges: it merges any two neighbours whose
    concatenation is a token.

    Args:
        core: the model of a tokenizer.json.
        tokens: the tokens to check, without added tokens.
    """
    merges = set(pairs_of(core))
    known = {token for token in tokens if not _is_byte(core, token)}
    for token in known:
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair[0] in known and pair[1] in known and pair not in merges:
                return [f"it merges {pair[0]!r} and {pair[1]!r} to {token!r}, and the tokenizer has no such merge"]
    return []


def _is_byte(core: Mapping[str, Any], token: str) -> bool:
    return bool(core.get("byte_fallback")) and len(token) == len("<0x00>") and token.startswith("<0x")
