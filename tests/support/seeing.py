"""Tiny random models that see, and what makes their inputs."""

from __future__ import annotations

from typing import Any

import transformers
from PIL import Image
from transformers import Idefics3Processor, LlavaConfig, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

IMAGE_SIZE = 16
PATCH = 4
SCALE = 2
IMAGE_TOKEN = 259
VOCABULARY = 264
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def is_multimodal(variant: str) -> bool:
    """Whether a variant takes images."""
    return variant.startswith(("idefics3", "smolvlm", "llava"))


def seeing_config(name: str, text: dict[str, Any], **vision: Any) -> Any:
    """A tiny configuration of Idefics3, SmolVLM or Llava around a language model's, a Llama's if it does not say."""
    eye = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
        **vision,
    }
    text = {"model_type": "llama", **text, "vocab_size": VOCABULARY}
    if name == "Llava":
        eye = {"model_type": "clip_vision_model", "projection_dim": 16, **eye}
        return LlavaConfig(text_config=text, vision_config=eye, image_token_index=IMAGE_TOKEN)
    return getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config=eye,
        scale_factor=SCALE,
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=bool(text.get("tie_word_embeddings")),
    )


def seeing_processor(
    tokenizer: PreTrainedTokenizerFast, splitting: bool = False, size: int = IMAGE_SIZE
) -> Idefics3Processor:
    """Images as tiles of the vision encoder's size, or each as one; the tokenizer gets the tokens that images need."""
    _add_tokens(tokenizer)
    images = Idefics3ImageProcessorPil(
        do_image_splitting=splitting,
        size={"longest_edge": 2 * size},
        max_image_size={"longest_edge": size},
    )
    tokens = (size // PATCH // SCALE) ** 2
    return Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=CHAT_TEMPLATE)


def llava_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Every image cropped to a square."""
    _add_tokens(tokenizer)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    # One token more than patches: CLIP's class token, which the strategy leaves out again.
    return LlavaProcessor(images, tokenizer, PATCH, "default", CHAT_TEMPLATE, num_additional_image_tokens=1)


def _add_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]}
    )
    tokenizer.pad_token = tokenizer.eos_token


def stripes(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A picture that is nowhere the same."""
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x * 255 // width, y * 255 // height, (x * y) % 256) for y in range(height) for x in range(width)])
    return picture.convert(mode)
