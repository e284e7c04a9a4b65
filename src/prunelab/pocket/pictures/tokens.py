"""The seeing pocket model's tokenizer and processor."""

from __future__ import annotations

import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from prunelab.pocket.pictures.drawing import SIZE
from prunelab.pocket.pictures.lessons import lesson
from prunelab.pocket.pictures.model import CONTEXT, IMAGE_TOKENS
from prunelab.pocket.tokens import BEGIN, END

VOCABULARY = 640
IMAGE, AROUND, OVER, WHOLE = "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"
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
"""As Idefics3's own: a picture stands right behind the speaker, text behind a space."""


def train_tokenizer(seed: int, lessons: int = 8_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the lessons; digits and lone capital letters are tokens by themselves."""
    rng = random.Random(f"picture tokenizer {seed}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" ?[A-Z0-9](?![a-z])"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, IMAGE, AROUND, OVER, WHOLE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (turn.text for _ in range(lessons) for turn in lesson(rng, 0.5).turns)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[IMAGE, AROUND, OVER, WHOLE],
        model_max_length=CONTEXT,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    """Pictures are taken as they are drawn, never split."""
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": SIZE},
        max_image_size={"longest_edge": SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Idefics3Processor(images, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE)
