"""Processors of vision-language models: completed from the config, and tested on a small image."""

from __future__ import annotations

import math
from typing import Any

from prunelab.errors import InvalidRequest, first_line
from prunelab.io.lazy import Image
from prunelab.models.chat_templates import WORD, check_template

CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0, "pixtral": 0}
"""Embeddings of an image besides its patches, by type of vision encoder."""

PICTURE = (40, 24)
"""Width and height of the image that a processor is tested on."""


def complete_processor(processor: Any, config: Any) -> None:
    """Fill in fields that a processor's files lack from the config, such as the `patch_size` of older LLaVA models.

    A tokenizer without a pad token pads with its end-of-text token, which the attention mask hides.

    Args:
        processor: a processor of transformers; it is modified.
        config: the model's config.
    """
    vision = getattr(config, "vision_config", None)
    from_config = {
        "patch_size": getattr(vision, "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
    }
    for name, value in from_config.items():
        if value is not None and hasattr(processor, name) and getattr(processor, name) is None:
            setattr(processor, name, value)
    extra = CLASS_TOKENS.get(getattr(vision, "model_type", ""))
    if extra is not None and not getattr(processor, "num_additional_image_tokens", extra):
        processor.num_additional_image_tokens = extra
    tokenizer = getattr(processor, "tokenizer", None)
    rows = int(config.get_text_config().vocab_size)
    if tokenizer is not None and (tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows):
        others = (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token)
        tokenizer.pad_token = next((token for token in others if token is not None), None)


def try_processor(name: str, processor: Any, config: Any) -> None:
    """Process a question about a small image, and compare its image tokens with the model's image features.

    Args:
        name: the model's name in error messages.
        processor: the model's processor.
        config: the model's config.

    Raises:
        InvalidRequest: the processor fails, yields a token id without an embedding, or yields another number of image
            tokens than the model has features.
    """
    # Imported late: it imports the tokenizer checks.
    from prunelab.models.vision.dialogue import model_inputs, prompt_text

    picture = Image.new("RGB", PICTURE, (90, 120, 150))
    if getattr(processor, "chat_template", None):
        check_template(name, processor, [{"type": "image"}, {"type": "text", "text": WORD}])
    try:
        texts = [prompt_text(processor, "What is this?", 1), prompt_text(processor, "What is in this picture?", 1)]
        inputs = model_inputs(processor, texts, [[picture], [picture]], "left")
    except InvalidRequest:
        raise
    except Exception as error:
        raise InvalidRequest(
            f"{name}'s processor fails on a small image ({first_line(error)}): put the model's own "
            "processor_config.json, preprocessor_config.json and tokenizer files beside the weights"
        ) from error
    rows, largest = int(config.get_text_config().vocab_size), int(inputs["input_ids"].max())
    if largest >= rows:
        raise InvalidRequest(
            f"{name}'s processor yields token id {largest}, and the model's embedding has {rows} rows: put the model's "
            "own tokenizer beside the weights"
        )
    token = getattr(config, "image_token_id", None)
    places = None if token is None else int((inputs["input_ids"][0] == token).sum())
    features = _features(config, inputs["pixel_values"]) if "pixel_values" in inputs else 0
    if places is not None and features is not None and places != features:
        raise InvalidRequest(
            f"{name}'s processor yields {places} image tokens for a small image, and the model yields {features} image "
            "features: correct processor_config.json (patch_size, num_additional_image_tokens, "
            "vision_feature_select_strategy, image_seq_len) and the image size in preprocessor_config.json"
        )


def _features(config: Any, pixels: Any) -> int | None:
    """Number of image features of a text's images, from the shape of the pixels; None if unknown.

    Args:
        config: the model's config.
        pixels: shape `(texts, channels, height, width)` or `(texts, tiles, channels, height, width)`.
    """
    vision = config.vision_config
    patch = getattr(vision, "patch_size", None)
    if not isinstance(patch, int) or pixels.ndim not in (4, 5):
        return None
    patches = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    scale = getattr(config, "scale_factor", None)
    if pixels.ndim == 5 and scale is not None:  # Idefics3 and SmolVLM: tiles with pixel shuffle
        return int(pixels.shape[1] * math.ceil(patches / scale**2))
    extra = CLASS_TOKENS.get(getattr(vision, "model_type", ""))
    strategy = getattr(config, "vision_feature_select_strategy", None)
    if pixels.ndim != 4 or extra is None or strategy is None:
        return None
    # "default" drops the first feature.
    return int(patches + extra - (strategy == "default"))
