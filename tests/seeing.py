"""Tiny random models that see, and what makes their inputs."""

from __future__ import annotations

from typing import Any

import transformers
from PIL import Image
from transformers import Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

IMAGE_SIZE = 16
PATCH = 4
SCALE = 2
IMAGE_TOKEN = 259
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def sees(variant: str) -> bool:
    """Whether a variant takes images."""
    return variant.startswith(("idefics3", "smolvlm"))


def seeing_config(name: str, text: dict[str, Any], **vision: Any) -> Any:
    """Idefics3's or SmolVLM's configuration around a tiny Llama's."""
    eye = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
    }
    return getattr(transformers, f"{name}Config")(
        text_config={"model_type": "llama", **text, "vocab_size": 264},
        vision_config={**eye, **vision},
        scale_factor=SCALE,
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=bool(text.get("tie_word_embeddings")),
    )


def seeing_processor(
    tokenizer: PreTrainedTokenizerFast, splitting: bool = False, size: int = IMAGE_SIZE
) -> Idefics3Processor:
    """Images as tiles of the vision encoder's size, or each as one; the tokenizer gets the tokens that images need."""
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]}
    )
    tokenizer.pad_token = tokenizer.eos_token
    images = Idefics3ImageProcessorPil(
        do_image_splitting=splitting,
        size={"longest_edge": 2 * size},
        max_image_size={"longest_edge": size},
    )
    tokens = (size // PATCH // SCALE) ** 2
    return Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=CHAT_TEMPLATE)


def stripes(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A picture that is nowhere the same."""
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x * 255 // width, y * 255 // height, (x * y) % 256) for y in range(height) for x in range(width)])
    return picture.convert(mode)
