"""Token ids of strings exactly as lm-eval's HFLM computes them; distinct strings are encoded once, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prunelab.errors import InvalidRequest
from prunelab.models.tokenizer_validation import added_tokens, without_behind

CHUNK = 1024
"""Number of strings per tokenizer call: the call is parallel, and its result holds more than the ids."""


class Encoder:
    """A tokenizer with lm-eval's rules for special tokens.

    Attributes:
        tokenizer: a transformers tokenizer.
        add_bos_token: whether a text begins with the tokenizer's special tokens; None leaves that to the tokenizer.
        prefix_token_id: the token that stands for an empty context; None if the tokenizer has neither a
            beginning-of-text nor an end-of-text token.
        behind: tokens that the tokenizer appends to every text. They are removed: after an end-of-text token the model
            would predict what follows the end of the text.
    """

    def __init__(self, tokenizer: Any, add_bos_token: bool | None = None) -> None:
        """Wrap a tokenizer; it is not changed."""
        self.tokenizer = tokenizer
        self.add_bos_token = add_bos_token
        bos = tokenizer.bos_token_id
        self.prefix_token_id: int | None = tokenizer.eos_token_id if bos is None else bos
        self.behind = added_tokens(tokenizer).behind

    def encode(self, strings: Iterable[str], *, special: bool | None = None) -> dict[str, list[int]]:
        """Token ids of each distinct string.

        Args:
            strings: texts.
            special: whether to add special tokens; None follows `add_bos_token`, and adds none to a text that already
                begins with the prefix token.
        """
        prefix = self.prefix_token_id
        return self._encode(strings, special, None if prefix is None else self.tokenizer.decode(prefix))

    def encode_prompts(self, prompts: Iterable[str]) -> dict[str, list[int]]:
        """Token ids of each distinct prompt; only a beginning-of-text token counts as its prefix."""
        return self._encode(prompts, None, self.tokenizer.bos_token)

    def _encode(self, strings: Iterable[str], special: bool | None, start: str | None) -> dict[str, list[int]]:
        from lm_eval.models.utils import has_bos_prefix

        by_rule: dict[bool | None, list[str]] = {}
        for string in dict.fromkeys(strings):
            started = special is None and has_bos_prefix(string, start)
            rule = False if started else self.add_bos_token if special is None else special
            by_rule.setdefault(rule, []).append(string)
        encoded: dict[str, list[int]] = {}
        for rule, texts in by_rule.items():
            options = {} if rule is None else {"add_special_tokens": rule}
            for first in range(0, len(texts), CHUNK):
                chunk = texts[first : first + CHUNK]
                ids = self.tokenizer(chunk, return_attention_mask=False, verbose=False, **options)["input_ids"]
                if self.behind and rule is not False:
                    ids = [without_behind(row, self.behind) for row in ids]
                encoded.update(zip(chunk, ids, strict=True))
        return encoded

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Context and continuation ids of each (context, continuation).

        Context and continuation are encoded as one string and split after the number of ids that the context has alone;
        trailing spaces of the context move to the continuation; an empty context becomes the prefix token.

        Raises:
            InvalidRequest: a context is empty, and the tokenizer has no prefix token.
        """
        moved = []
        for context, continuation in pairs:
            stripped = context.rstrip() if context else ""
            moved.append((stripped, context[len(stripped) :] + continuation, context == ""))
        texts = (text for context, rest, empty in moved if not empty for text in (context, context + rest))
        encoded = self.encode(texts)
        alone = self.encode((rest for _, rest, empty in moved if empty), special=False)
        if alone and self.prefix_token_id is None:
            raise InvalidRequest(
                "a context is empty and the tokenizer has neither a beginning-of-text nor an end-of-text token "
                "to replace it: set bos_token in its tokenizer_config.json"
            )
        split: list[tuple[list[int], list[int]]] = []
        for context, rest, empty in moved:
            if not empty:
                ids = encoded[context]
                split.append((ids, encoded[context + rest][len(ids) :]))
            elif alone[rest][:1] == [self.prefix_token_id]:
                split.append((alone[rest][:1], alone[rest][1:]))
            elif self.prefix_token_id is not None:
                split.append(([self.prefix_token_id], alone[rest]))
        return split
