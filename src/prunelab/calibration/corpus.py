"""Calibration sets: windows of text drawn from a corpus, reproducible by seed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import xxhash

from prunelab.errors import DataError, InvalidRequest, UnknownName
from prunelab.io.data_rows import TextRow, require_rows
from prunelab.io.datasets import Source, read_documents
from prunelab.io.fingerprint import tensor_bytes
from prunelab.io.lazy import torch
from prunelab.models.tokenizer_validation import added_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

WIKITEXT2 = Source("Salesforce/wikitext", "wikitext-2-raw-v1", wanted_by="--benchmark wikitext2")
C4 = Source("allenai/c4", "en", "en/c4-train.00000-of-01024.json.gz", wanted_by="--calibration c4")
CORPORA = {"wikitext2": WIKITEXT2, "c4": C4}
SHORTEST = 32
"""The shortest window, in tokens, that an error message suggests; a request may be shorter."""


def find_corpus(name: str) -> Source:
    """The hub data set of a corpus.

    Raises:
        UnknownName: no such corpus; suggests the nearest name.
    """
    if name not in CORPORA:
        raise UnknownName("corpus", name, CORPORA)
    return CORPORA[name]


class Pairs(Protocol):
    """The image inputs of samples; see `prunelab.calibration.image_text`."""

    def of(self, start: int, stop: int) -> dict[str, Tensor]:
        """The model's inputs besides token ids and mask, for the samples from `start` to `stop`."""


@dataclass(frozen=True)
class CalibrationSet:
    """Tokens to calibrate on.

    Attributes:
        token_ids: shape `(samples, sequence_length)`.
        attention_mask: true for tokens that count, same shape; None if all count.
        held_out: further windows of the same text, on which search methods compare candidates, shape
            `(windows, sequence_length)`.
        corpus: `wikitext2`, `c4`, or the name of the user's file.
        split: the split of the data set, or `file`.
        revision: version of the data: a hash of the texts or images.
        seed: the seed of the draw.
        pairs: for samples of images with text, the source of the pixel inputs; None for text.
        held_out_pairs: for samples of images with text, the counterpart of `held_out`.
        asked_length: requested tokens a sample, if samples may be shorter; None otherwise.
    """

    token_ids: Tensor
    attention_mask: Tensor | None = None
    held_out: Tensor | None = None
    corpus: str = ""
    split: str = ""
    revision: str = ""
    seed: int = 0
    pairs: Pairs | None = None
    held_out_pairs: CalibrationSet | None = None
    asked_length: int | None = None

    @property
    def held_out_samples(self) -> Tensor | CalibrationSet | None:
        """Held-out samples on which search methods compare candidates: text, or images with text; None if absent."""
        return self.held_out if self.held_out_pairs is None else self.held_out_pairs

    @property
    def sequence_length(self) -> int:
        """Tokens a sample."""
        return int(self.token_ids.shape[1])

    def mask_of(self, start: int, stop: int) -> Tensor | None:
        """The mask of the samples from `start` to `stop`; None if all their tokens count."""
        if self.attention_mask is None:
            return None
        mask = self.attention_mask[start:stop].bool()
        return None if bool(mask.all()) else mask

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the calibration tokens, mask and images: 16 hexadecimal digits."""
        digest = xxhash.xxh3_64(str(tuple(self.token_ids.shape)).encode())
        digest.update(tensor_bytes(self.token_ids))
        if self.attention_mask is not None:
            digest.update(tensor_bytes(self.attention_mask.bool()))
        if self.pairs is not None:
            digest.update(self.revision.encode())  # a hash of the images
        return str(digest.hexdigest())

    def provenance(self) -> dict[str, Any]:
        """The record that plans and results keep of this calibration set."""
        return {
            "corpus": self.corpus,
            "split": self.split,
            "revision": self.revision,
            "samples": len(self.token_ids),
            "sequence_length": self.asked_length or self.sequence_length,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
        }


def draw_calibration_set(
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int = 128,
    sequence_length: int = 2048,
    held_out: int = 16,
    seed: int = 0,
    datasets_root: Path | None = None,
) -> CalibrationSet:
    """Draw non-overlapping windows of text, each preceded by the tokenizer's start token if it has one.

    WikiText-2 is one running text (lines joined by blank lines), cut into windows at a random offset; C4 and files are
    documents concatenated in random order. WikiText-2 is drawn from its train split or, if that is absent, from its
    validation split with a warning; never from its test split, on which perplexity is measured.

    Args:
        corpus: `wikitext2`, `c4`, or the path of a text or JSONL file.
        tokenizer: the model's tokenizer.
        samples: windows to calibrate on.
        sequence_length: tokens a window, the start token included.
        held_out: further windows, disjoint from the samples.
        seed: seed of the draw.
        datasets_root: folder with copies of the hub's data sets.

    Raises:
        InvalidRequest: fewer than 1 sample or 2 tokens a sample.
        DataError: the corpus is missing or has too little text.
    """
    if samples < 1 or sequence_length < 2:
        raise InvalidRequest(f"{samples} samples of {sequence_length} tokens: give at least 1 sample of 2 tokens")
    split, revision, documents, running = _read(corpus, datasets_root)
    start = start_tokens(tokenizer)
    generator = torch.Generator().manual_seed(seed)
    length = sequence_length - len(start)
    wanted = samples + held_out
    windows = _running_windows if running else _document_windows
    drawn = windows(documents, tokenizer, length, wanted, generator)
    if len(drawn) < wanted:
        most, longest = len(drawn) - held_out, len(drawn) * length // wanted + len(start)
        fewer = [f"--samples {most} or less"] if most > 0 else []
        shorter = [f"--sequence-length {longest} or less"] if longest >= SHORTEST else []
        ways = ", or ".join([*fewer, *shorter, "a longer text"])
        raise DataError(
            f"{corpus} ({split}) has text for {len(drawn)} windows of {sequence_length} tokens, and {wanted} were "
            f"requested ({samples} samples and {held_out} held out): give {ways}"
        )
    tokens = torch.cat([torch.tensor(start, dtype=torch.long).expand(wanted, -1), drawn], dim=1)
    name = corpus if corpus in CORPORA else Path(corpus).name
    return CalibrationSet(tokens[:samples], None, tokens[samples:], name, split, revision, seed)


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The start token that the tokenizer adds before every text, as a list of one id; empty if it adds none."""
    return [token for token in added_tokens(tokenizer).before if token == tokenizer.bos_token_id][:1]


def _read(corpus: str, root: Path | None) -> tuple[str, str, Sequence[str], bool]:
    """Split, revision, documents, and whether they are one running text."""
    if corpus in CORPORA:
        try:
            return _read_known(corpus, root)
        except DataError as error:
            raise DataError(f"{error}; or calibrate on your own text with --calibration FILE") from error
    if not Path(corpus).suffix:
        raise DataError(
            f"unknown corpus {corpus!r}: give one of {', '.join(CORPORA)}, textvqa (for vision-language models), or a "
            ".txt, .jsonl or .json file"
        )
    documents = read_documents(Path(corpus))
    return "file", _revision(documents), documents, False


def _read_known(corpus: str, root: Path | None) -> tuple[str, str, Sequence[str], bool]:
    """The same for a corpus on the hub."""
    if corpus == "wikitext2":
        split = "train" if "train" in WIKITEXT2.splits(root) else "validation"
        if split != "train":
            warnings.warn(
                "WikiText-2's train split is missing: calibrating on its validation split", UserWarning, stacklevel=4
            )
        lines = _texts(WIKITEXT2, split, root)
        return split, _revision(lines), ["\n\n".join(lines)], True
    texts = _texts(C4, "train", root)
    return "train", _revision(texts), texts, False


def _texts(source: Source, split: str, root: Path | None) -> list[str]:
    documents = source.load(split, root)
    require_rows(source, split, documents, TextRow)
    texts: list[str] = documents["text"][:]
    return texts


def _revision(texts: Sequence[str]) -> str:
    digest = xxhash.xxh3_64()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    return str(digest.hexdigest())


def _running_windows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, wanted: int, generator: torch.Generator
) -> Tensor:
    """Windows of one running text at a random offset, in random order, shape `(windows, length)`."""
    (text,) = documents
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids, dtype=torch.long)
    spare = len(ids) % length if len(ids) >= length * wanted else 0
    offset = int(torch.randint(spare + 1, (), generator=generator))
    count = (len(ids) - offset) // length
    windows = ids[offset : offset + count * length].reshape(count, length)
    return windows[torch.randperm(count, generator=generator)[:wanted]]


def _document_windows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, wanted: int, generator: torch.Generator
) -> Tensor:
    """Windows of documents concatenated in random order, shape `(windows, length)`."""
    tokens: list[int] = []
    start = start_tokens(tokenizer)
    for index in torch.randperm(len(documents), generator=generator).tolist():
        tokens += start if tokens else []
        tokens += tokenizer(documents[index], add_special_tokens=False, verbose=False).input_ids
        if len(tokens) >= wanted * length:
            break
    count = min(len(tokens) // length, wanted)
    return torch.tensor(tokens[: count * length], dtype=torch.long).reshape(count, length)
