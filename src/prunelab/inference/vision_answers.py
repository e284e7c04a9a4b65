"""Answers of a vision-language model to questions about images: greedy, batched, images prepared in a thread."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from prunelab.errors import NonFiniteValue
from prunelab.inference.continuation import continuation_text
from prunelab.inference.sampler import end_tokens
from prunelab.io.lazy import inference_mode, torch, transformers
from prunelab.models.vision.dialogue import model_inputs, prompt_text
from prunelab.models.vision.images import Opened, Picture, UnusableImage, open_picture

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.loading import LanguageModel

ROWS = 8
"""Questions per batch, unless the tokens of a batch are limited."""
NAMED = 20
"""Maximum number of images named in a result; all are counted."""


@dataclass(frozen=True)
class PictureQuestion:
    """A question about images.

    Attributes:
        id: name of the sample.
        prompt: the benchmark's prompt text.
        pictures: its images; empty for a question without images.
    """

    id: str
    prompt: str
    pictures: tuple[Picture, ...]


@dataclass
class ImageReport:
    """Problems with images.

    Attributes:
        remarks: by image name, the conversions of images that were used.
        unusable: by image name, the reason why an image was not used; its questions are left out.
        beyond_context: number of questions that, with their images, exceed the context that the model was trained on;
            they are asked nevertheless, as in the official code.
    """

    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    beyond_context: int = 0

    def conditions(self) -> dict[str, str | int]:
        """Counts for a result's conditions (each image once), and the names of the first unusable images."""
        counts = Counter(remark for remarks in self.remarks.values() for remark in remarks)
        conditions: dict[str, str | int] = {f"images {remark}": count for remark, count in sorted(counts.items())}
        if self.beyond_context:
            conditions["beyond context"] = self.beyond_context
        if self.unusable:
            named = [f"{name} ({reason})" for name, reason in list(self.unusable.items())[:NAMED]]
            more = len(self.unusable) - len(named)
            conditions["images unusable"] = len(self.unusable)
            conditions["unusable images"] = "; ".join(named) + (f"; and {more} more" if more else "")
        return conditions


@dataclass(frozen=True)
class _Ready:
    """A batch of model inputs."""

    questions: Sequence[PictureQuestion]
    inputs: dict[str, Tensor]


def answers(
    model: LanguageModel,
    questions: Iterable[PictureQuestion],
    report: ImageReport,
    *,
    max_new_tokens: int,
    rows: int = ROWS,
) -> Iterator[tuple[PictureQuestion, str]]:
    """Yield each question with the model's answer, in order; questions with unusable images are reported and left out.

    A thread prepares the next batch while the model runs; at most two batches are in memory.

    Args:
        model: a vision-language model.
        questions: the questions, consumed lazily.
        report: collects problems with images.
        max_new_tokens: maximum number of tokens per answer.
        rows: questions per batch; in float32 answers depend on it only by rounding.

    Raises:
        NonFiniteValue: the model's logits are NaN or infinite; the message names the first question of the batch.
    """
    with ThreadPoolExecutor(1) as worker:
        waiting: deque[Future[_Ready]] = deque()
        for chunk in _chunks(questions, rows):
            waiting.append(worker.submit(_prepared, model, chunk, report))
            if len(waiting) == 2:
                yield from _answered(model, waiting.popleft().result(), max_new_tokens)
        while waiting:
            yield from _answered(model, waiting.popleft().result(), max_new_tokens)


def _chunks(questions: Iterable[PictureQuestion], size: int) -> Iterator[list[PictureQuestion]]:
    left = iter(questions)
    while chunk := list(islice(left, size)):
        yield chunk


def _prepared(model: LanguageModel, chunk: Sequence[PictureQuestion], report: ImageReport) -> _Ready:
    """The batch of the questions whose images are usable."""
    asked, shown = [], []
    for question in chunk:
        images = _opened(question, report)
        if images is not None:
            asked.append(question)
            shown.append([question_.image for question_ in images])
    if not asked:
        return _Ready([], {})
    texts = [prompt_text(model.processor, question_.prompt, len(question_.pictures)) for question_ in asked]
    inputs = model_inputs(model.processor, texts, shown, "left")
    report.beyond_context += int((inputs["attention_mask"].sum(dim=1) > model.context_length).sum())
    return _Ready(asked, inputs)


def _opened(question: PictureQuestion, report: ImageReport) -> list[Opened] | None:
    """A question's images, or None if one is unusable."""
    images = []
    for picture in question.pictures:
        try:
            images.append(open_picture(picture))
        except UnusableImage as error:
            report.unusable[picture.name] = str(error)
            return None
    for picture, image in zip(question.pictures, images, strict=True):
        if image.remarks:
            report.remarks[picture.name] = image.remarks
    return images


def _answered(model: LanguageModel, ready: _Ready, max_new_tokens: int) -> Iterator[tuple[PictureQuestion, str]]:
    if not ready.questions:
        return
    try:
        texts = _generate(model, ready.inputs, max_new_tokens, ready.questions[0].id)
    except torch.OutOfMemoryError:
        if len(ready.questions) == 1:
            raise
        # Prepare the questions one by one: a batch pads its questions to the same number of images.
        for question in ready.questions:
            alone = _prepared(model, [question], ImageReport())
            yield from _answered(model, alone, max_new_tokens)
        return
    yield from zip(ready.questions, texts, strict=True)


@inference_mode
def _generate(model: LanguageModel, inputs: dict[str, Tensor], max_new_tokens: int, name: str) -> list[str]:
    """Greedy decoding; of the model's generation settings only the end tokens are used."""
    ends = torch.tensor(sorted(_ends(model)), dtype=torch.long, device=model.device)
    moved = {key: tensor.to(model.device) for key, tensor in inputs.items()}
    mask = moved["attention_mask"]
    places = (mask.cumsum(dim=1) - 1).clamp_min(0)
    cache = transformers.DynamicCache(config=model.model.config.get_text_config())
    written: list[Tensor] = []
    over = torch.zeros(len(mask), dtype=torch.bool, device=model.device)
    fed = {**moved, "position_ids": places}
    for _ in range(max_new_tokens):
        logits = model.model(**fed, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
        if not torch.isfinite(logits).all():
            raise NonFiniteValue(
                f"the logits of {model.name} are NaN or infinite for the batch of question {name}: the weights may be "
                "damaged, or the dtype may overflow (try --dtype float32)"
            )
        token = logits.argmax(dim=-1)
        written.append(token.masked_fill(over, int(ends[0])) if len(ends) else token)
        over |= torch.isin(token, ends)
        if bool(over.all()):
            break
        places = places[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        fed = {"input_ids": token[:, None], "attention_mask": mask, "position_ids": places}
    prompts = [
        ids[attended.bool()].tolist() for ids, attended in zip(moved["input_ids"], moved["attention_mask"], strict=True)
    ]
    rows = torch.stack(written, dim=1)
    return [_text(model, prompt, row, ends) for prompt, row in zip(prompts, rows, strict=True)]


def _text(model: LanguageModel, prompt: list[int], row: Tensor, ends: Tensor) -> str:
    """The text before the first end token."""
    stops = torch.isin(row, ends).nonzero()
    kept = row[: int(stops[0])] if len(stops) else row
    return continuation_text(model.tokenizer, prompt, kept.tolist()).strip()


def _ends(model: LanguageModel) -> set[int]:
    """The tokens that end a text or a turn of a dialogue."""
    turn = getattr(model.processor, "end_of_utterance_token", None)
    turn_ids = [] if turn is None else [model.tokenizer.convert_tokens_to_ids(turn)]
    return {*end_tokens(model.model, model.tokenizer), *turn_ids}
