"""The pocket models' tokenizer, and training text as tokens."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizers.pre_tokenizers import PreTokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from prunelab.pocket.tasks import TASKS, Item, Task
from prunelab.pocket.tasks.instructions import CHAT_TEMPLATE, INSTRUCT, RESPOND
from prunelab.pocket.turns import BEGIN, END, Turns

VOCABULARY = 2048
EARLY = (0.12, 0.40)
"""Progress of training at which task shares start to change, and at which they are final."""


def train_tokenizer(seed: int, context: int, documents: int = 20_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the training text, with Qwen2's pre-tokenization and single digits.

    `AutoTokenizer` applies this pre-tokenization to every model of that type, whatever its files say, and adds an
    unknown token unless one is named, although byte-level text has no unknown parts.
    """
    rng = random.Random(f"tokenizer {seed}")
    texts = ("".join(piece.text for piece in rng.choice(TASKS).document(rng)) for _ in range(documents))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"), to_bytes])
    special = [BEGIN, END, INSTRUCT, RESPOND]
    fast = byte_level_bpe(texts, VOCABULARY, special, split, model_max_length=context, unk_token=END)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def byte_level_bpe(
    texts: Iterator[str], vocabulary: int, special: Sequence[str], split: PreTokenizer, **more: Any
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; every text begins with `BEGIN`, as in Llama 3, and `END` is the padding token.

    Args:
        texts: texts to learn merges from.
        vocabulary: maximum size of the vocabulary.
        special: special tokens, including `BEGIN` and `END`.
        split: pre-tokenizer, which also converts the text to bytes.
        **more: arguments of `PreTrainedTokenizerFast`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END, **more)


class Kind(IntEnum):
    """The kind of a training token: prompt, running text, or answer."""

    PROMPT = 0
    TEXT = 1
    ANSWER = 2


@dataclass(frozen=True)
class Batch:
    """Rows of training tokens, all of shape `(rows, length)`.

    Attributes:
        tokens: a continuous text, split into rows at arbitrary positions.
        kind: index of each token's `Kind`.
        task: index of each token's task.
    """

    tokens: Tensor
    kind: Tensor
    task: Tensor


class Stream:
    """A stream of documents of all tasks, in the tasks' shares.

    Args:
        tokenizer: the model's tokenizer.
        seed: random seed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.rng = random.Random(f"stream {seed}")
        self._tokenizer = tokenizer
        self._waiting: list[tuple[int, int, int]] = []
        self._turns = Turns()
        self._begin, self._end = (tokenizer.convert_tokens_to_ids(token) for token in (BEGIN, END))

    def batch(self, rows: int, length: int, progress: float) -> Batch:
        """The next rows.

        Args:
            rows: number of rows.
            length: tokens per row.
            progress: progress of training, from 0 to 1.
        """
        while len(self._waiting) < rows * length:
            self._waiting += self._document(progress)
        pending, self._waiting = self._waiting[: rows * length], self._waiting[rows * length :]
        columns = (torch.tensor(column).reshape(rows, length) for column in zip(*pending, strict=True))
        return Batch(*columns)

    def _document(self, progress: float) -> Iterator[tuple[int, int, int]]:
        """A document of the task that is furthest below its share."""
        index = self._turns.next()
        pieces = TASKS[index].document(self.rng)
        given = Kind.PROMPT if any(piece.is_answer for piece in pieces) else Kind.TEXT
        document = [(self._begin, given, index), *((token, kind, index) for token, kind in self._tokens(pieces, given))]
        document.append((self._end, Kind.ANSWER if pieces[-1].is_answer else given, index))
        self._turns.take(index, len(document), [_share(task, progress) for task in TASKS])
        yield from document

    def _tokens(self, pieces: Item, given: Kind) -> Iterator[tuple[int, Kind]]:
        """Tokenize as benchmarks do: the prompt as one text, and the model's answer as another."""
        stretch: list[tuple[str, Kind]] = []
        for piece in pieces:
            if piece.is_answer:
                yield from self._whole(stretch)
                stretch = []
            stretch.append((piece.text, Kind.ANSWER if piece.is_answer else given))
        yield from self._whole(stretch)

    def _whole(self, stretch: Sequence[tuple[str, Kind]]) -> Iterator[tuple[int, Kind]]:
        """Tokens of one text; each has the kind of the piece in which it ends."""
        ends = list(accumulate(len(text) for text, _ in stretch))
        encoded = self._tokenizer(
            "".join(text for text, _ in stretch), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for token, (_, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
            yield token, stretch[bisect_left(ends, end)][1]


def _share(task: Task, progress: float) -> float:
    """A task's share of the tokens at this progress of training."""
    begins, ends = EARLY
    left = min(1.0, max(0.0, (ends - progress) / (ends - begins)))
    return task.share * (1.0 + (task.early - 1.0) * left)
