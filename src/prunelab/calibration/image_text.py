"""Calibration on images with text: what a model that sees is given, question, answer and all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import xxhash
from pydantic import Field

from prunelab.calibration.corpus import CalibrationSet
from prunelab.errors import DataError, InvalidRequest
from prunelab.io.data_rows import Row, Words, require_rows
from prunelab.io.datasets import Source
from prunelab.io.documents import is_json_name, read_rows
from prunelab.io.lazy import torch
from prunelab.models.vision.dialogue import model_inputs, prompt_text, without_marks
from prunelab.models.vision.images import Picture, UnusableImage, column_picture, file_picture, open_picture
from prunelab.models.vision.prompts import BRIEFLY

if TYPE_CHECKING:
    from torch import Tensor

TEXTVQA = Source("lmms-lab/textvqa", "default", wanted_by="--benchmark textvqa")
PAIR_CORPORA = {"textvqa": TEXTVQA}


class TextVqaTrainRow(Row):
    """A question of TextVQA with what people answered."""

    images: ClassVar[tuple[str, ...]] = ("image",)

    question: Words
    answers: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class ImageTextPair:
    """An image, a question about it and the answer."""

    picture: Picture
    question: str
    answer: str


@dataclass(frozen=True)
class PairInputs:
    """The samples of a calibration set of pairs, made anew whenever they are needed: images are never all in memory.

    Attributes:
        processor: the model's.
        pairs: one a sample.
        length: tokens a sample, to which shorter ones are padded.
    """

    processor: Any
    pairs: Sequence[ImageTextPair]
    length: int

    def of(self, start: int, stop: int) -> dict[str, Tensor]:
        """What the model takes in besides token ids and mask, for some samples."""
        chosen = self.pairs[start:stop]
        images = [[open_picture(pair.picture).image] for pair in chosen]
        inputs = model_inputs(self.processor, [_text(self.processor, pair) for pair in chosen], images, "right")
        return {name: tensor for name, tensor in inputs.items() if name.startswith("pixel")}


def is_pairs(corpus: str) -> bool:
    """Whether a corpus holds images: it is called so, or is a JSON file whose first row names an image."""
    if corpus in PAIR_CORPORA:
        return True
    path = Path(corpus)
    if not is_json_name(path) or not os.path.isfile(path):
        return False
    try:
        row = next(read_rows(path), None)
    except DataError:
        return False  # whoever reads it as text says what is wrong
    return row is not None and isinstance(row.value, dict) and "image" in row.value


def draw_pairs(
    corpus: str,
    processor: Any,
    *,
    samples: int = 128,
    sequence_length: int = 2048,
    held_out: int = 16,
    seed: int = 0,
    datasets_root: Path | None = None,
) -> CalibrationSet:
    """Draw pairs of an image and a dialogue about it, each a sample of its own.

    An image that is missing, broken or enormous is passed over, and so is a pair that is longer than a sample may be.

    Args:
        corpus: `textvqa` (its train split), or a JSON file of rows with an `image` (a path beside it), a `question` and
            an `answer`.
        processor: the model's.
        samples: pairs to calibrate on.
        sequence_length: tokens a pair at most, its image's among them.
        held_out: further pairs, drawn from what the samples left.
        seed: decides which are drawn, and in which order.
        datasets_root: folder with copies of the hub's data sets.

    Raises:
        InvalidRequest: the model sees nothing, or a number is not positive.
        DataError: the corpus is missing or has too few pairs.
    """
    if processor is None:
        raise InvalidRequest(f"{corpus} holds images, and the model takes none: give a text to calibrate on")
    if samples < 1 or sequence_length < 2:
        raise InvalidRequest(f"{samples} samples of {sequence_length} tokens: give at least 1 sample of 2 tokens")
    pairs = _pairs(corpus, datasets_root)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    found, passed = [], Counter[str]()
    for index in order:
        try:
            found.append((pairs[index], *_tokens(processor, pairs[index], sequence_length)))
        except UnusableImage as error:
            passed[str(error)] += 1
        if len(found) == samples + held_out:
            break
    if len(found) < samples + held_out:
        why = "".join(f", {count} {reason}" for reason, count in passed.items())
        raise DataError(
            f"{corpus} has {len(found)} pairs to calibrate on{why}, {samples + held_out} were asked for ({samples} "
            f"samples and {held_out} held out): give fewer --samples, a larger --sequence-length, or more pairs"
        )
    name = corpus if corpus in PAIR_CORPORA else Path(corpus).name
    split = "train" if corpus in PAIR_CORPORA else "file"
    rest = _set(processor, found[samples:], name, split, sequence_length, seed, None) if held_out else None
    return _set(processor, found[:samples], name, split, sequence_length, seed, rest)


Drawn = tuple[ImageTextPair, list[int], int]


def _set(
    processor: Any, drawn: Sequence[Drawn], name: str, split: str, asked: int, seed: int, rest: CalibrationSet | None
) -> CalibrationSet:
    length = max(len(ids) for _, ids, _ in drawn)
    filler = processor.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[filler] * (length - len(row))] for _, row, _ in drawn])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for _, row, _ in drawn], dtype=torch.bool)
    digest = xxhash.xxh3_64()
    for _, _, image in drawn:
        digest.update(image.to_bytes(8, "big"))
    inputs = PairInputs(processor, [pair for pair, _, _ in drawn], length)
    return CalibrationSet(ids, mask, None, name, split, digest.hexdigest(), seed, inputs, rest, asked)


def _text(processor: Any, pair: ImageTextPair) -> str:
    ending = getattr(processor, "end_of_utterance_token", "")
    return f"{prompt_text(processor, pair.question, 1)} {without_marks(processor, pair.answer)}{ending}"


def _tokens(processor: Any, pair: ImageTextPair, most: int) -> tuple[list[int], int]:
    """A pair's token ids, and a hash of its image's file."""
    image = open_picture(pair.picture).image
    ids = model_inputs(processor, [_text(processor, pair)], [[image]], "right")["input_ids"][0].tolist()
    if len(ids) > most:
        raise UnusableImage(f"longer than {most} tokens")
    return ids, xxhash.xxh3_64_intdigest(pair.picture.read())


def _pairs(corpus: str, root: Path | None) -> Sequence[ImageTextPair]:
    if corpus in PAIR_CORPORA:
        return _HubPairs(corpus, root)
    return list(_file_pairs(Path(corpus)))


class _HubPairs(Sequence[ImageTextPair]):
    """TextVQA's train split, its rows read one by one; the answer is the one most people gave."""

    def __init__(self, corpus: str, root: Path | None) -> None:
        import datasets

        rows = PAIR_CORPORA[corpus].load("train", root)
        require_rows(PAIR_CORPORA[corpus], "train", rows, TextVqaTrainRow)
        self._rows = rows.cast_column("image", datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        answer = Counter(row["answers"]).most_common(1)[0][0]
        picture = column_picture(f"row {index}", self._rows, index)
        return ImageTextPair(picture, f"{row['question'].capitalize()}\n{BRIEFLY}", answer)


def _file_pairs(path: Path) -> Iterator[ImageTextPair]:
    for row in read_rows(path):
        fields = row.value if isinstance(row.value, dict) else {}
        image, question, answer = (fields.get(key) for key in ("image", "question", "answer"))
        if not (isinstance(image, str) and isinstance(question, str) and isinstance(answer, str)):
            raise DataError(
                f'{row.where}, is not {{"image": "...", "question": "...", "answer": "..."}}: give one such object a '
                "line, or a list of them"
            )
        yield ImageTextPair(file_picture(path.parent / image), question, answer)
