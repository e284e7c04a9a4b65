"""tokenizer.json against the tokenizer that transformers made of it: the tokens of the file are the model's.

Some tokenizer classes of transformers take vocabulary and merges from tokenizer.json and put their own normaliser,
pre-tokenizer and decoder in place of the file's. Where tokenizer_config.json names the class of another model, the
tokens are then not those that the model was trained with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import is_normalized

from prunelab.io.lazy import transformers

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
PROBES = (
    "a", " a", "a  b", "   three", "Hello World, it's 12345 o'clock!", "x = 10 ** -5", "\tif x:\n\t\treturn  y\n\n",
    "a\r\nb \n c", "don't DON'T we'll", "camelCase HTTPServer snake_case", "café naïve", "Привет", "日本語123abc",
    "नमस्ते ٣٤٥", "🙂 👍🏽", "...!? -- ***", "1,000,000 3.14", "▁a Ġb", "ﬁne Ａｂｃ", " trailing ",
)  # fmt: skip
"""Texts at which normalisers, pre-tokenizers and decoders differ; all in NFC, to which some classes normalise."""
WORDS = 300
"""So many tokens of the vocabulary are read as texts too, evenly chosen: they show other merges."""


def as_the_file_says(name: str, tokenizer: Any) -> Any:
    """The tokenizer with the tokens of its tokenizer.json, and without random merges (`dropout` of BPE).

    Args:
        name: the checkpoint's folder or its id on the hub; also what messages call it.
        tokenizer: what transformers made of it.

    Returns:
        The same tokenizer, or one read from tokenizer.json itself where the class gives other tokens; with a warning.
    """
    from tokenizers import Tokenizer

    path = _file(name)
    if path is not None and not _reads_the_file(type(tokenizer)) and hasattr(tokenizer, "backend_tokenizer"):
        text = first_difference(tokenizer, Tokenizer.from_file(str(path)))
        if text is not None:
            warnings.warn(
                f"{name}: the tokenizer class {type(tokenizer).__name__} reads {text!r:.60} as other tokens than "
                f"{TOKENIZER_FILE}, which is taken instead: set tokenizer_class to TokenizersBackend in "
                "tokenizer_config.json",
                UserWarning,
                stacklevel=3,
            )
            tokenizer = transformers.TokenizersBackend.from_pretrained(name)
    if dropout := _without_dropout(getattr(tokenizer, "backend_tokenizer", None)):
        warnings.warn(
            f"{name}: {TOKENIZER_FILE} merges at random (dropout {dropout:g}), as for training: it is switched off",
            UserWarning,
            stacklevel=3,
        )
    return tokenizer


def first_difference(tokenizer: Any, file: Tokenizer) -> str | None:
    """A text that a tokenizer of transformers splits or decodes otherwise than a tokenizer.json; None without one."""
    file.no_truncation()
    file.no_padding()
    _without_dropout(file)
    vocabulary = sorted(file.get_vocab(with_added_tokens=False))
    step = max(1, len(vocabulary) // WORDS)
    words = (token.replace("Ġ", " ").replace("▁", " ") for token in vocabulary[::step])
    texts = [*PROBES, *(word for word in words if is_normalized("NFC", word))]
    theirs: Sequence[Sequence[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    for text, ids, encoding in zip(texts, theirs, file.encode_batch(texts, add_special_tokens=False), strict=True):
        if list(ids) != encoding.ids:
            return text
        plain = tokenizer.decode(encoding.ids, clean_up_tokenization_spaces=False)
        if plain != file.decode(encoding.ids, skip_special_tokens=False):
            return text
    return None


def _without_dropout(backend: Tokenizer | None) -> float:
    """Switch off random merges, and say how likely a merge was left out."""
    model: Any = None if backend is None else backend.model
    dropout = float(getattr(model, "dropout", None) or 0)
    if dropout:
        model.dropout = None
    return dropout


def _file(name: str) -> Path | None:
    if Path(name).is_dir():
        path = Path(name) / TOKENIZER_FILE
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        name,
        TOKENIZER_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if found is None else Path(found)


def _reads_the_file(kind: type) -> bool:
    """Whether a class of tokenizers takes every step from tokenizer.json, as those without a constructor do."""
    return kind is transformers.TokenizersBackend or "__init__" not in kind.__dict__
