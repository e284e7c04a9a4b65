"""The special tokens that a tokenizer adds to a text, and checks that the embedding has a row for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunelab.errors import CheckpointError, DataError, InvalidRequest, first_line

PROBES = ("a", "the", "0", "text")
"""Texts that are encoded with and without special tokens to find the added tokens."""


@dataclass(frozen=True)
class AddedTokens:
    """The special tokens that a tokenizer adds to every text.

    Attributes:
        before: ids before the text, such as a start token.
        behind: ids after the text, such as the end token of a tokenizer that was saved after fine-tuning.
    """

    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


def added_tokens(tokenizer: Any) -> AddedTokens:
    """The special tokens that a tokenizer adds to every text, found by encoding short texts with and without them."""
    for probe in PROBES:
        plain: list[int] = tokenizer(probe, add_special_tokens=False, verbose=False)["input_ids"]
        full: list[int] = tokenizer(probe, verbose=False)["input_ids"]
        if not plain:
            continue
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return AddedTokens(tuple(full[:start]), tuple(full[start + len(plain) :]))
    return AddedTokens()


def without_behind(ids: list[int], behind: Sequence[int]) -> list[int]:
    """A text's ids without the special tokens that the tokenizer added after it."""
    if behind and tuple(ids[-len(behind) :]) == tuple(behind):
        return ids[: -len(behind)]
    return ids


def check_tokenizer(name: str, tokenizer: Any, rows: int | None) -> None:
    """Refuse a tokenizer that fails, or that has tokens without a row in the model's embedding.

    Args:
        name: the checkpoint's name in error messages.
        tokenizer: a tokenizer of transformers.
        rows: rows of the model's embedding; None if unknown.

    Raises:
        CheckpointError: the tokenizer fails or is empty, or a token has no row; names the token with the largest id.
    """
    try:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        added_tokens(tokenizer)
    except BaseException as error:
        # A panic of the library's Rust code is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"{name}'s tokenizer fails on a short text ({first_line(error)}): fetch its files again"
        ) from error
    if not vocabulary:
        raise CheckpointError(
            f"{name}'s tokenizer has no tokens: put the model's own tokenizer files beside the weights"
        )
    if rows is None:
        return
    beyond = sorted((id_, token) for token, id_ in vocabulary.items() if id_ >= rows)
    # Tokenizer classes add special tokens that ordinary texts do not contain; `check_ids` refuses texts that do.
    used = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    unusable = [(id_, token) for id_, token in beyond if id_ in used or not _is_special(tokenizer, id_)]
    if unusable:
        id_, token = unusable[-1]
        more = f" and {len(unusable) - 1} more" if len(unusable) > 1 else ""
        raise CheckpointError(
            f"{name}'s tokenizer has token {token[:40]!r} with id {id_}{more}, and the model's embedding has {rows} "
            "rows: put the model's own tokenizer beside the weights, or delete the added tokens from its files"
        )


def _is_special(tokenizer: Any, id_: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(id_)
    return id_ in tokenizer.all_special_ids or bool(added is not None and added.special)


def check_ids(model: Any, largest: int, name: str) -> None:
    """Refuse token ids that have no row in a model's embedding.

    Args:
        model: a model of transformers.
        largest: the largest token id.
        name: the text's name in error messages.

    Raises:
        DataError: the embedding has no row for the id.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    if largest >= rows:
        raise DataError(
            f"{name} has token id {largest}, and the model's embedding has {rows} rows: put the model's own tokenizer "
            "beside the weights, or delete the special token from the text"
        )


def require_start(name: str, tokenizer: Any, why: str) -> None:
    """Refuse a tokenizer with neither a beginning-of-text nor an end-of-text token.

    Args:
        name: the model's name in error messages.
        tokenizer: a tokenizer of transformers.
        why: the reason why the token is needed, for the message.

    Raises:
        InvalidRequest: the tokenizer has neither token.
    """
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise InvalidRequest(
            f"{name}'s tokenizer has neither a beginning-of-text nor an end-of-text token, and {why}: set bos_token in "
            "its tokenizer_config.json"
        )
