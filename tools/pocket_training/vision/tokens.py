"""The pocket vision-language model's tokenizer and processor."""

from __future__ import annotations

import random

from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, Split
from transformers import Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from prunelab.pocket.turns import BEGIN, END
from prunelab.pocket.vision.drawing import SIZE
from tools.pocket_training.tokens import byte_level_bpe
from tools.pocket_training.vision.curriculum import lesson
from tools.pocket_training.vision.model import CONTEXT, IMAGE_TOKENS

VOCABULARY = 640
SEEING = [IMAGE, AROUND, OVER, WHOLE] = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set first = loop.first %}"
    "{{ message.role | capitalize }}:"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}"
    "{{ part.text if loop.previtem is defined and loop.previtem.type == 'image' else ' ' ~ part.text }}"
    "{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Chat template, as Idefics3's: an image directly follows the speaker, text follows a space."""


def train_tokenizer(seed: int, lessons: int = 8_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the lessons; digits and single capital letters are separate tokens."""
    rng = random.Random(f"picture tokenizer {seed}")
    texts = (turn.text for _ in range(lessons) for turn in lesson(rng, 0.5).turns)
    return byte_level_bpe(
        texts,
        VOCABULARY,
        [BEGIN, END, *SEEING],
        pre_tokenizers.Sequence([Split(Regex(" ?[A-Z0-9](?![a-z])"), "isolated"), ByteLevel(add_prefix_space=False)]),
        additional_special_tokens=SEEING,
        model_max_length=CONTEXT,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    """The processor, which keeps the images' size and does not split them."""
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": SIZE},
        max_image_size={"longest_edge": SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Idefics3Processor(images, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE)
