"""Train the pocket vision-language model from scratch: `python -m tools.pocket_training.vision.train`."""

from __future__ import annotations

import argparse
import json
import math
import random
import string
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast, set_seed

from prunelab.pocket.turns import BEGIN, END
from tools.pocket_training.initialization import give_heads
from tools.pocket_training.optimizer import Mean, Optimizers, Rates, can_compile, write_record
from tools.pocket_training.vision.batches import GIVEN, Writer
from tools.pocket_training.vision.curriculum import KINDS
from tools.pocket_training.vision.model import IMAGE_TOKENS, picture_config
from tools.pocket_training.vision.tokens import IMAGE, make_processor, train_tokenizer

SHARPNESS = 20.0
"""Scale of the cosines before the softmax over all words."""


@dataclass(frozen=True)
class Recipe(Rates):
    """The training configuration.

    Attributes:
        steps: number of steps.
        pictures: images per step.
        length: maximum number of tokens per image with its questions.
        given: loss weight of given tokens; answer tokens have weight 1.
        naming: weight of the naming loss, which pulls an image token towards the embeddings of its two words.
        seed: random seed of weights, tokenizer and lessons.
    """

    match_rate: float = 0.01
    steps: int = 3000
    pictures: int = 16
    length: int = 120
    given: float = 0.06
    naming: float = 0.3
    seed: int = 0


def train(recipe: Recipe, out: Path, compiled: bool) -> None:
    """Train the model, and write its checkpoint, its processor and `training.json` with the recipe and the curve.

    Args:
        recipe: the training configuration.
        out: output folder.
        compiled: whether the step is compiled, which needs a C++ compiler and makes it about twice as fast.
    """
    set_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe.seed)
    begin, end, image = (tokenizer.convert_tokens_to_ids(name) for name in (BEGIN, END, IMAGE))
    model = Idefics3ForConditionalGeneration(picture_config(len(tokenizer), begin, end, image))
    model.set_attn_implementation("eager")  # faster to compile and, at this size, to run
    give_heads(model.model.text_model, recipe.seed)
    _make_alike(tokenizer, model.get_input_embeddings().weight)
    writer = Writer(tokenizer, recipe.length)
    weights = torch.tensor([1.0] * len(KINDS) + [recipe.given, 0.0])
    losses = torch.compile(_losses, dynamic=False) if compiled else _losses
    forward = partial(losses, model, writer.image_from, recipe.naming)
    optimizers = Optimizers(model, recipe, recipe.steps)
    rng = random.Random(f"pictures {recipe.seed}")
    curve: list[dict[str, Any]] = []
    right = Mean(KINDS)
    began = time.monotonic()
    for step in range(recipe.steps):
        batch = writer.batch(rng, recipe.pictures, step / recipe.steps)
        kind = batch.kind[:, 1:]
        loss, hits = forward(batch.pixels, batch.tokens, weights[kind], batch.names)
        loss.backward()
        if not math.isfinite(loss.item()):
            raise FloatingPointError("the loss is not finite: lower the learning rates")
        optimizers.advance()
        right.add(hits, kind, kind < GIVEN)
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            curve.append({"step": step + 1, "loss": round(loss.item(), 4), "right": right.drain()})
            print(f"{time.monotonic() - began:6.0f} s {json.dumps(curve[-1])}", flush=True)
    seconds = time.monotonic() - began
    model.to(torch.bfloat16).save_pretrained(out)
    make_processor(tokenizer).save_pretrained(out)
    write_record(out, "pocket-idefics3", model, recipe, seconds, curve)


@torch.no_grad()
def _make_alike(tokenizer: PreTrainedTokenizerFast, table: Tensor) -> None:
    """Initialize letters and digits after a space, as in answers, near those without a space, as in options.

    Args:
        tokenizer: the model's tokenizer.
        table: embeddings, shape `(tokens, hidden)`.
    """
    for character in string.ascii_uppercase + string.digits:
        alone, after_space = (
            tokenizer(text, add_special_tokens=False).input_ids[0] for text in (character, f" {character}")
        )
        table[after_space] = (table[after_space] + table[alone]) / 2


def _losses(
    model: Idefics3ForConditionalGeneration,
    image_from: int,
    naming: float,
    pixels: Tensor,
    tokens: Tensor,
    weights: Tensor,
    names: Tensor,
) -> tuple[Tensor, Tensor]:
    """The loss, and whether each token after the first was top-1, shape `(pictures, length - 1)`.

    The loss is the weighted mean over tokens plus the naming loss, which pulls an image token towards the embeddings of
    the words for its content. A question's words can then match image tokens as they match words of a text.
    """
    with torch.autocast("cpu", torch.bfloat16):
        features = model.model.connector(model.model.vision_model(pixels).last_hidden_state)
        text = model.get_input_embeddings()(tokens)
        embedded = torch.cat(
            [text[:, :image_from], features.to(text.dtype), text[:, image_from + IMAGE_TOKENS :]], dim=1
        )
        hidden = model.model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1]).float()
    target = tokens[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    loss = (losses * weights).sum() / weights.sum()
    table = model.get_input_embeddings().weight
    likeness = SHARPNESS * normalize(features.float(), dim=-1) @ normalize(table - table.mean(dim=0), dim=-1).T
    named = -likeness.log_softmax(dim=-1).gather(-1, names).mean()
    return loss + naming * named, logits.argmax(dim=-1) == target


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the pocket vision-language model from scratch.")
    parser.add_argument("--out", type=Path, default=Path("pocket-idefics3"), help="output folder")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1, help="more than one rarely pays at this size")
    parser.add_argument(
        "--no-compile", action="store_true", help="do not compile the step; implied if there is no C++ compiler"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = Recipe(steps=given.steps, seed=given.seed)
    train(recipe, given.out, compiled=can_compile() and not given.no_compile)


if __name__ == "__main__":
    main()
