"""From a question and its images to what a model that sees takes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import torch
from prunelab.models.chat_templates import render
from prunelab.models.tokenizer_validation import added_tokens

if TYPE_CHECKING:
    from PIL import Image


def prompt_text(processor: Any, question: str, images: int) -> str:
    """The text that a model is given: the question behind its images, in the processor's own form of a dialogue.

    Args:
        processor: the model's; without a chat template the images stand before the question, and nothing else.
        question: as the benchmark words it.
        images: how many there are.
    """
    question = without_marks(processor, question)
    if not getattr(processor, "chat_template", None):
        return f"{processor.image_token * images}{question}\n"
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
    return render(processor, [{"role": "user", "content": content}], add_generation_prompt=True)


def without_marks(processor: Any, text: str) -> str:
    """A text without the marks that stand for images: those of a dialogue are set by `prompt_text`."""
    mark: str = processor.image_token
    return text.replace(mark, "").strip() if mark in text else text


def model_inputs(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str
) -> dict[str, torch.Tensor]:
    """A batch: token ids, attention mask, and pixels where there are images.

    Args:
        processor: the model's.
        texts: with a mark in the place of every image.
        images: those of each text.
        padding_side: `left` to generate behind the texts, `right` otherwise.
    """
    start = processor.tokenizer.bos_token
    # A chat template puts the start token in by itself, and it is not to stand there twice.
    special = not (start and all(text.startswith(start) for text in texts))
    shown = {"images": [list(some) for some in images]} if any(images) else {}
    batch = processor(
        text=list(texts),
        padding=True,
        padding_side=padding_side,
        add_special_tokens=special,
        return_tensors="pt",
        **shown,
    )
    if special and (behind := added_tokens(processor.tokenizer).behind):
        _take_off(batch, len(behind), padding_side)
    kept = ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")
    return {name: batch[name] for name in kept if name in batch}


def _take_off(batch: Any, count: int, padding_side: str) -> None:
    """Take the last tokens of every text out of a padded batch: what the tokenizer put behind it."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if padding_side == "right":
        lengths = mask.sum(dim=1, keepdim=True)
        mask = mask * (torch.arange(mask.shape[1]) < lengths - count)
    batch["input_ids"], batch["attention_mask"] = ids[:, :-count], mask[:, :-count]
