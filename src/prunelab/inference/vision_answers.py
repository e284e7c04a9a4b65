"""What a model that sees says to questions with images: greedily, in batches, images streamed through a worker."""

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
"""Questions that are answered together unless the tokens of a batch are limited."""
NAMED = 20
"""Images that are named in a result; all are counted."""


@dataclass(frozen=True)
class PictureQuestion:
    """A question about images.

    Attributes:
        id: names the sample.
        prompt: as the benchmark words it.
        pictures: what it is about; none for a question without.
    """

    id: str
    prompt: str
    pictures: tuple[Picture, ...]


@dataclass
class ImageReport:
    """What was the matter with images.

    Attributes:
        remarks: by name, what had to be done to images that were shown all the same.
        unusable: name and reason of images that could not be shown; their questions are left out.
        beyond_context: questions that are, with their images, longer than what the model was made to look at; they are
            asked all the same, as the official code does.
    """

    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    beyond_context: int = 0

    def conditions(self) -> dict[str, str | int]:
        """For a result's conditions: counts, each image once, and the first unusable images by name."""
        counts = Counter(remark for remarks in self.remarks.values() for remark in remarks)
        found: dict[str, str | int] = {f"images {remark}": count for remark, count in sorted(counts.items())}
        if self.beyond_context:
            found["beyond context"] = self.beyond_context
        if self.unusable:
            named = [f"{name} ({reason})" for name, reason in list(self.unusable.items())[:NAMED]]
            more = len(self.unusable) - len(named)
            found["images unusable"] = len(self.unusable)
            found["unusable images"] = "; ".join(named) + (f"; and {more} more" if more else "")
        return found


@dataclass(frozen=True)
class _Ready:
    """A batch that the model can take."""

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
    """Each question with the model's answer, in order; those whose images are unusable are left out and reported.

    A thread reads and prepares the next batch while the model works on one: no more than two are ever in memory.

    Args:
        model: one that sees.
        questions: taken one by one.
        report: what was the matter with images is written into it.
        max_new_tokens: tokens an answer at most.
        rows: questions a batch; in float32 answers depend on it by rounding only.

    Raises:
        NonFiniteValue: naming the first question of a batch for which the model gives NaN or infinity.
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
    """The batch of those questions whose images can be shown."""
    asked, shown = [], []
    for question in chunk:
        images = _opened(question, report)
        if images is not None:
            asked.append(question)
            shown.append([one.image for one in images])
    if not asked:
        return _Ready([], {})
    texts = [prompt_text(model.processor, one.prompt, len(one.pictures)) for one in asked]
    inputs = model_inputs(model.processor, texts, shown, "left")
    report.beyond_context += int((inputs["attention_mask"].sum(dim=1) > model.context_length).sum())
    return _Ready(asked, inputs)


def _opened(question: PictureQuestion, report: ImageReport) -> list[Opened] | None:
    """A question's images, or None where one is unusable."""
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
        for question in ready.questions:  # one by one, prepared anew: a batch pads its images to one number
            alone = _prepared(model, [question], ImageReport())
            yield from _answered(model, alone, max_new_tokens)
        return
    yield from zip(ready.questions, texts, strict=True)


@inference_mode
def _generate(model: LanguageModel, inputs: dict[str, Tensor], max_new_tokens: int, name: str) -> list[str]:
    """The likeliest token again and again; nothing is taken from the model's own generation settings but its ends."""
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
                f"{model.name} gives NaN or infinity for {name} or one asked with it: the weights may be damaged, or "
                "the dtype too narrow (try --dtype float32)"
            )
        token = logits.argmax(dim=-1)
        written.append(token.masked_fill(over, int(ends[0])) if len(ends) else token)
        over |= torch.isin(token, ends)
        if bool(over.all()):
            break
        places = places[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        fed = {"input_ids": token[:, None], "attention_mask": mask, "position_ids": places}
    prompts = [ids[seen.bool()].tolist() for ids, seen in zip(moved["input_ids"], moved["attention_mask"], strict=True)]
    rows = torch.stack(written, dim=1)
    return [_text(model, prompt, row, ends) for prompt, row in zip(prompts, rows, strict=True)]


def _text(model: LanguageModel, prompt: list[int], row: Tensor, ends: Tensor) -> str:
    """What stands before the first token that ends an answer."""
    stops = torch.isin(row, ends).nonzero()
    kept = row[: int(stops[0])] if len(stops) else row
    return continuation_text(model.tokenizer, prompt, kept.tolist()).strip()


def _ends(model: LanguageModel) -> set[int]:
    """The tokens that end a text, and the one that ends a turn of a dialogue."""
    turn = getattr(model.processor, "end_of_utterance_token", None)
    own = [] if turn is None else [model.tokenizer.convert_tokens_to_ids(turn)]
    return {*end_tokens(model.model, model.tokenizer), *own}
