"""Where the merges of a BPE and llama.cpp's way to merge could part."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tokenizers.models import BPE


def pairs_of(core: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json's model, the first first."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in core.get("merges", ()))
    return [(left, right) for left, right in pairs]


def unreachable(core: Mapping[str, Any], tokens: Collection[str]) -> list[str]:
    """Tokens that are no result of the merges, so that only a word taken whole (`ignore_merges`) becomes them.

    Args:
        core: the model of a tokenizer.json.
        tokens: the tokens in question, added ones left out.
    """
    if core["type"] != "BPE":
        return []
    made = {left + right for left, right in pairs_of(core)}
    longer = [token for token in tokens if len(token) > 1 and not _is_byte(core, token)]
    lonely = [token for token in longer if token not in made]
    if lonely:
        return lonely
    bpe = BPE(core["vocab"], pairs_of(core))
    return [token for token in longer if len(bpe.tokenize(token)) > 1]


def merged_by_llama_cpp_alone(core: Mapping[str, Any], tokens: Collection[str]) -> list[str]:
    """Pairs that llama.cpp merges though no merge says so, as a clause for the user; empty where there are none.

    For characters with bytes to fall back on llama.cpp knows no merges, but scores of tokens: it joins any two
    neighbours whose union is a token.
    """
    merges = set(pairs_of(core))
    known = {token for token in tokens if not _is_byte(core, token)}
    for token in known:
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair[0] in known and pair[1] in known and pair not in merges:
                return [f"it joins {pair[0]!r} and {pair[1]!r} to {token!r}, for which the tokenizer has no merge"]
    return []


def _is_byte(core: Mapping[str, Any], token: str) -> bool:
    return bool(core.get("byte_fallback")) and len(token) == len("<0x00>") and token.startswith("<0x")
