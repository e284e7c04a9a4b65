"""Turn questions with images into the inputs of a vision-language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import torch
from prunelab.models.chat_templates import render
from prunelab.models.tokenizer_validation import added_tokens

if TYPE_CHECKING:
    from PIL import Image


def prompt_text(processor: Any, question: str, images: int) -> str:
    """Render the prompt of a question: the images, then the question, in the processor's chat template.

    Args:
        processor: the model's processor; without a chat template, the prompt is image tokens and the question.
        question: the question as the benchmark phrases it.
        images: number of images.

    Raises:
        InvalidRequest: the chat template fails.
    """
    question = without_marks(processor, question)
    if not getattr(processor, "chat_template", None):
        return f"{processor.image_token * images}{question}\n"
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
    return render(processor, [{"role": "user", "content": content}], add_generation_prompt=True)


def without_marks(processor: Any, text: str) -> str:
    """Remove image tokens from a text; `prompt_text` adds those of the prompt."""
    mark: str = processor.image_token
    return text.replace(mark, "").strip() if mark in text else text


def model_inputs(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str
) -> dict[str, torch.Tensor]:
    """Encode a batch: token ids, attention mask and, for texts with images, pixels.

    Args:
        processor: the model's processor.
        texts: texts with an image token in the position of every image.
        images: the images of each text.
        padding_side: `left` to generate after the texts, `right` otherwise.

    Returns:
        `input_ids` and `attention_mask`, shape `(texts, tokens)`; with images also `pixel_values` and, depending on the
        processor, `pixel_attention_mask`.
    """
    start = processor.tokenizer.bos_token
    # A chat template adds the start token itself; it must not be added twice.
    special = not (start and all(text.startswith(start) for text in texts))
    image_inputs = {"images": [list(group) for group in images]} if any(images) else {}
    batch = processor(
        text=list(texts),
        padding=True,
        padding_side=padding_side,
        add_special_tokens=special,
        return_tensors="pt",
        **image_inputs,
    )
    if special and (behind := added_tokens(processor.tokenizer).behind):
        _take_off(batch, len(behind), padding_side)
    kept = ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")
    return {name: batch[name] for name in kept if name in batch}


def _take_off(batch: Any, count: int, padding_side: str) -> None:
    """Remove the last tokens of every text from a padded batch: those that the tokenizer added after it."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if padding_side == "right":
        lengths = mask.sum(dim=1, keepdim=True)
        mask = mask * (torch.arange(mask.shape[1]) < lengths - count)
    batch["input_ids"], batch["attention_mask"] = ids[:, :-count], mask[:, :-count]
