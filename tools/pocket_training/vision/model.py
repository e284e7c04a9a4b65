"""The pocket vision-language model: a small Idefics3."""

from __future__ import annotations

from transformers import Idefics3Config, LlamaConfig

from prunelab.pocket.vision.drawing import CELL, SIZE

CONTEXT = 256
PATCH = CELL // 2
SCALE = 2
IMAGE_TOKENS = (SIZE // PATCH // SCALE) ** 2
"""Image tokens, one per cell."""


def picture_config(vocabulary: int, begin: int, end: int, image: int) -> Idefics3Config:
    """The configuration: a vision encoder of three blocks and a decoder of ten.

    Args:
        vocabulary: size of the vocabulary.
        begin: token at the beginning of every text.
        end: token at the end, also the padding token.
        image: placeholder token for an image's features.
    """
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=CONTEXT,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=end,
        tie_word_embeddings=True,
    )
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": SIZE,
        "patch_size": PATCH,
    }
    return Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=SCALE,
        image_token_id=image,
        tie_word_embeddings=True,
        pad_token_id=end,
    )
