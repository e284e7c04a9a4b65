"""Calibration of vision-language models on images with text: image, question and answer in each sample."""

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
    """A TextVQA question with its human answers."""

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
    """Pixel inputs of the samples, loaded again for every batch so that images are never all in memory.

    Attributes:
        processor: the model's processor.
        pairs: one pair a sample.
        length: tokens a sample, to which shorter samples are padded.
    """

    processor: Any
    pairs: Sequence[ImageTextPair]
    length: int

    def of(self, start: int, stop: int) -> dict[str, Tensor]:
        """The model's inputs besides token ids and mask, for the samples from `start` to `stop`."""
        chosen = self.pairs[start:stop]
        images = [[open_picture(pair.picture).image] for pair in chosen]
        inputs = model_inputs(self.processor, [_text(self.processor, pair) for pair in chosen], images, "right")
        return {name: tensor for name, tensor in inputs.items() if name.startswith("pixel")}


def is_pairs(corpus: str) -> bool:
    """Whether a corpus holds images: a known corpus of pairs, or a JSON file whose first row has an `image`."""
    if corpus in PAIR_CORPORA:
        return True
    path = Path(corpus)
    if not is_json_name(path) or not os.path.isfile(path):
        return False
    try:
        row = next(read_rows(path), None)
    except DataError:
        return False  # reading it as text raises the error
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
    """Draw pairs of an image and a dialogue about it, one pair a sample.

    Skips images that are missing, broken or enormous, and pairs that are longer than `sequence_length`.

    Args:
        corpus: `textvqa` (its train split), or a JSON file of rows with an `image` (a path relative to the file), a
            `question` and an `answer`.
        processor: the model's processor; None for a language model.
        samples: pairs to calibrate on.
        sequence_length: most tokens of a pair, image tokens included.
        held_out: further pairs, disjoint from the samples.
        seed: seed of the draw and of its order.
        datasets_root: folder with copies of the hub's data sets.

    Raises:
        InvalidRequest: the model takes no images, or fewer than 1 sample or 2 tokens a sample.
        DataError: the corpus is missing or has too few pairs.
    """
    if processor is None:
        raise InvalidRequest(f"{corpus} holds images, and the model takes none: calibrate on text")
    if samples < 1 or sequence_length < 2:
        raise InvalidRequest(f"{samples} samples of {sequence_length} tokens: give at least 1 sample of 2 tokens")
    pairs = _pairs(corpus, datasets_root)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    drawn, skipped = [], Counter[str]()
    for index in order:
        try:
            drawn.append((pairs[index], *_tokens(processor, pairs[index], sequence_length)))
        except UnusableImage as error:
            skipped[str(error)] += 1
        if len(drawn) == samples + held_out:
            break
    if len(drawn) < samples + held_out:
        reasons = "".join(f", {count} {reason}" for reason, count in skipped.items())
        raise DataError(
            f"{corpus} has {len(drawn)} usable pairs{reasons}, and {samples + held_out} were requested ({samples} "
            f"samples and {held_out} held out): give fewer --samples, a larger --sequence-length, or more pairs"
        )
    name = corpus if corpus in PAIR_CORPORA else Path(corpus).name
    split = "train" if corpus in PAIR_CORPORA else "file"
    rest = _set(processor, drawn[samples:], name, split, sequence_length, seed, None) if held_out else None
    return _set(processor, drawn[:samples], name, split, sequence_length, seed, rest)


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
    """The token ids of a pair and a hash of its image file."""
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
    """TextVQA's train split, read row by row; the answer is the most frequent human answer."""

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
