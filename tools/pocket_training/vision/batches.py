"""Batches of lessons: pixels, tokens, and the kind of each token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prunelab.pocket.vision.drawing import draw
from prunelab.pocket.vision.questions import words
from tools.pocket_training.vision.curriculum import KINDS, Lesson, lesson
from tools.pocket_training.vision.model import IMAGE_TOKENS
from tools.pocket_training.vision.tokens import AROUND, IMAGE, OVER, WHOLE

GIVEN = len(KINDS)
"""Kind of a given token, as opposed to an answer token."""
NOTHING = GIVEN + 1
"""Kind of image and padding tokens."""


@dataclass(frozen=True)
class Batch:
    """Images with their dialogues.

    Attributes:
        pixels: shape `(pictures, 3, side, side)`, from -1 to 1.
        tokens: shape `(pictures, length)`, padded on the right; image tokens have the same positions in all rows.
        kind: index of the kind of question that a token answers, `GIVEN` if it answers none, `NOTHING` if it does not
            count; same shape.
        names: two words per image token, shape `(pictures, image tokens, 2)`.
    """

    pixels: Tensor
    tokens: Tensor
    kind: Tensor
    names: Tensor


class Writer:
    """Converts lessons to batches.

    Args:
        tokenizer: the model's tokenizer.
        length: maximum number of tokens per image with its questions.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._known: dict[str, list[int]] = {}
        special = [tokenizer.convert_tokens_to_ids(name) for name in (AROUND, WHOLE, *[IMAGE] * IMAGE_TOKENS, AROUND)]
        self.head = [tokenizer.bos_token_id, *self._ids("User:"), *special]
        self.over = tokenizer.convert_tokens_to_ids(OVER)

    @property
    def image_from(self) -> int:
        """Position of the first image token in every row."""
        return len(self.head) - IMAGE_TOKENS - 1

    def batch(self, rng: random.Random, pictures: int, progress: float) -> Batch:
        """The next batch of lessons."""
        lessons = [lesson(rng, progress) for _ in range(pictures)]
        tokens, kinds = zip(*map(self.row, lessons), strict=True)
        pixels = np.stack([np.asarray(draw(lesson_drawn.scene)) for lesson_drawn in lessons])
        names = torch.tensor([[self._name(pair) for pair in words(lesson_drawn.scene)] for lesson_drawn in lessons])
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Batch(scaled, torch.tensor(tokens), torch.tensor(kinds), names)

    def _name(self, names: Sequence[str]) -> list[int]:
        """The tokens of words inside a sentence; characters of a sign are single tokens."""
        return [self._ids(word if len(word) == 1 else f" {word}")[0] for word in names]

    def row(self, lesson_row: Lesson) -> tuple[list[int], list[int]]:
        """A lesson's tokens with their kinds, padded to the length; turns that do not fit are omitted."""
        tokens, kinds = list(self.head), [NOTHING] * len(self.head)
        for index, turn in enumerate(lesson_row.turns):
            prompt = [*self._ids(f"\nUser: {turn.prompt}" if index else turn.prompt), self.over]
            prompt += self._ids("\nAssistant:")
            pieces = [(prompt, False), *((self._ids(piece.text), piece.is_answer) for piece in turn.answer)]
            pieces.append(([self.over], False))
            if len(tokens) + sum(len(ids) for ids, _ in pieces) > self._length:
                continue
            for ids, is_answer in pieces:
                tokens += ids
                kinds += [KINDS.index(turn.kind) if is_answer else GIVEN] * len(ids)
        rest = self._length - len(tokens)
        return tokens + [self._tokenizer.eos_token_id] * rest, kinds + [NOTHING] * rest

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 100_000:
                self._known.clear()
            self._known[text] = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return self._known[text]
