"""Processors of vision-language models: completed from the config, and tried on one small picture."""

from __future__ import annotations

import math
from typing import Any

from prunelab.errors import InvalidRequest, first_line
from prunelab.io.lazy import Image
from prunelab.models.chat_templates import WORD, check_template

CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0, "pixtral": 0}
"""By type of vision encoder: embeddings that it makes of a picture besides those of patches."""

PICTURE = (40, 24)
"""Width and height of the picture that a processor is tried on."""


def complete_processor(processor: Any, config: Any) -> None:
    """Fill in what a processor's files lack and the config says: LLaVA's of old have no `patch_size`, for example.

    A tokenizer without a pad token pads with its end-of-text token, which the attention mask hides.

    Args:
        processor: of transformers; it is changed.
        config: the model's.
    """
    vision = getattr(config, "vision_config", None)
    said = {
        "patch_size": getattr(vision, "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
    }
    for name, value in said.items():
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
    """Prepare a question about one small picture, and count the places that its features get.

    Args:
        name: what messages call the model.
        processor: the model's.
        config: the model's.

    Raises:
        InvalidRequest: the processor fails, or leaves another number of places than the model has features.
    """
    # Brings in the scorer's rule for special tokens.
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
            f"{name}'s processor fails at a small picture ({first_line(error)}): put the model's own "
            "processor_config.json, preprocessor_config.json and tokenizer files beside the weights"
        ) from error
    rows, largest = int(config.get_text_config().vocab_size), int(inputs["input_ids"].max())
    if largest >= rows:
        raise InvalidRequest(
            f"{name}'s processor gives token id {largest}, and the model's embedding has {rows} rows: put the model's "
            "own tokenizer beside the weights"
        )
    token = getattr(config, "image_token_id", None)
    places = None if token is None else int((inputs["input_ids"][0] == token).sum())
    features = _features(config, inputs["pixel_values"]) if "pixel_values" in inputs else 0
    if places is not None and features is not None and places != features:
        raise InvalidRequest(
            f"{name}'s processor leaves {places} places for a small picture, and the model makes {features} features "
            "of it: correct processor_config.json (patch_size, num_additional_image_tokens, "
            "vision_feature_select_strategy, image_seq_len) and the image size in preprocessor_config.json"
        )


def _features(config: Any, pixels: Any) -> int | None:
    """Features that the model makes of a text's pictures, from the shape of the pixels; None where not known.

    Args:
        config: the model's.
        pixels: `(texts, channels, height, width)`, or with a number of tiles behind `texts`.
    """
    vision = config.vision_config
    patch = getattr(vision, "patch_size", None)
    if not isinstance(patch, int) or pixels.ndim not in (4, 5):
        return None
    patches = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    scale = getattr(config, "scale_factor", None)
    if pixels.ndim == 5 and scale is not None:  # Idefics3 and SmolVLM: tiles, whose features are shuffled together
        return int(pixels.shape[1] * math.ceil(patches / scale**2))
    extra = CLASS_TOKENS.get(getattr(vision, "model_type", ""))
    strategy = getattr(config, "vision_feature_select_strategy", None)
    if pixels.ndim != 4 or extra is None or strategy is None:
        return None
    # "default" drops the first feature, whatever it is.
    return int(patches + extra - (strategy == "default"))
