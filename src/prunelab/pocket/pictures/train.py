"""Train the seeing pocket model from nothing: `python -m prunelab.pocket.pictures.train`."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast, set_seed

from prunelab.pocket.pictures.drawing import draw
from prunelab.pocket.pictures.lessons import Lesson, lesson
from prunelab.pocket.pictures.model import IMAGE_TOKENS, picture_config
from prunelab.pocket.pictures.questions import words
from prunelab.pocket.pictures.tokens import AROUND, IMAGE, OVER, WHOLE, make_processor, train_tokenizer
from prunelab.pocket.tokens import BEGIN, END

KINDS = ("existence", "reading", "lettered", "colour", "shape", "place", "count", "description")
SHORT = ("existence", "lettered")
"""Kinds whose answers are one token."""
SHARPNESS = 10.0
"""What cosines are multiplied with before the softmax over all words."""
GIVEN = len(KINDS)
"""The kind of a token that is given rather than asked for."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: how many.
        pictures: a step.
        length: tokens a picture with its questions, at most.
        given: weight in the loss of tokens that are given; an answer's have 1.
        naming: weight of the loss in which an image token is to lie near the embeddings of its two words.
        short: weight of the tokens of a yes, a no or a letter, of which there are few.
        matrix_rate: learning rate of the blocks' matrices (Muon).
        other_rate: of embeddings, norms, biases and patches (AdamW).
        weight_decay: of the matrices.
        warm_up: steps to the full rate.
        decay: the last part of training, in which rates fall to nothing.
        seed: of weights, tokenizer and lessons.
    """

    steps: int = 4000
    pictures: int = 32
    length: int = 120
    given: float = 0.02
    naming: float = 1.0
    short: float = 3.0
    matrix_rate: float = 0.015
    other_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    decay: float = 0.6
    seed: int = 0

    def rate(self, step: int) -> float:
        """What learning rates are multiplied with."""
        left = (self.steps - step) / (self.decay * self.steps)
        return min(1.0, (step + 1) / self.warm_up, left)


@dataclass(frozen=True)
class Batch:
    """Pictures with their dialogues.

    Attributes:
        pixels: shape `(pictures, 3, side, side)`, from -1 to 1.
        tokens: shape `(pictures, length)`, padded on the right; every picture's tokens stand at the same places.
        kind: the number of the kind of question that a token answers, `GIVEN` where it answers none, same shape.
        weight: in the loss, same shape.
        names: two words for every image token, shape `(pictures, image tokens, 2)`.
    """

    pixels: Tensor
    tokens: Tensor
    kind: Tensor
    weight: Tensor
    names: Tensor


class Writer:
    """Lessons as batches.

    Args:
        tokenizer: of the model that is trained.
        recipe: how it is trained.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._known: dict[str, list[int]] = {}
        special = [tokenizer.convert_tokens_to_ids(name) for name in (AROUND, WHOLE, *[IMAGE] * IMAGE_TOKENS, AROUND)]
        self.head = [tokenizer.bos_token_id, *self._ids("User:"), *special]
        self.over = tokenizer.convert_tokens_to_ids(OVER)

    @property
    def image_from(self) -> int:
        """Where the picture's tokens begin in every row."""
        return len(self.head) - IMAGE_TOKENS - 1

    def batch(self, rng: random.Random, progress: float) -> Batch:
        """The next lessons."""
        lessons = [lesson(rng, progress) for _ in range(self._recipe.pictures)]
        rows = [self.row(one) for one in lessons]
        pixels = np.stack([np.asarray(draw(one.scene)) for one in lessons])
        columns = [torch.tensor([row[part] for row in rows]) for part in range(3)]
        names = torch.tensor([[self._name(pair) for pair in words(one.scene)] for one in lessons])
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Batch(scaled, columns[0], columns[1], columns[2], names)

    def _name(self, pair: tuple[str, str]) -> list[int]:
        """The tokens of two words, as they stand inside a sentence; characters of a sign stand alone."""
        return [self._ids(word if len(word) == 1 else f" {word}")[0] for word in pair]

    def row(self, one: Lesson) -> tuple[list[int], list[int], list[float]]:
        """A lesson's tokens with their kinds and weights, cut or padded to the length."""
        recipe = self._recipe
        tokens, kinds, weights = list(self.head), [GIVEN] * len(self.head), [0.0] * len(self.head)
        for index, turn in enumerate(one.turns):
            prompt = [*self._ids(f"\nUser: {turn.prompt}" if index else turn.prompt), self.over]
            prompt += self._ids("\nAssistant:")
            pieces = [(self._ids(piece.text), piece.is_answer) for piece in turn.answer]
            pieces = [(prompt, False), *pieces, ([self.over], True)]
            if len(tokens) + sum(len(ids) for ids, _ in pieces) > recipe.length:
                continue
            weight = recipe.short if turn.kind in SHORT else 1.0
            for ids, is_answer in pieces:
                tokens += ids
                kinds += [KINDS.index(turn.kind) if is_answer else GIVEN] * len(ids)
                weights += [weight if is_answer else recipe.given] * len(ids)
        rest = recipe.length - len(tokens)
        return tokens + [self._tokenizer.eos_token_id] * rest, kinds + [GIVEN] * rest, weights + [0.0] * rest

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 100_000:
                self._known.clear()
            self._known[text] = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return self._known[text]


class Trainer:
    """A model in training, which can be put down and taken up again.

    Args:
        recipe: how.
        out: folder to write to; its `resume.pt` is where training goes on, where there is one.
        compiled: whether through torch.compile.
    """

    def __init__(self, recipe: Recipe, out: Path, compiled: bool = True) -> None:
        set_seed(recipe.seed)
        self.recipe, self.out = recipe, out
        self.tokenizer = train_tokenizer(recipe.seed)
        begin, end, image = (self.tokenizer.convert_tokens_to_ids(name) for name in (BEGIN, END, IMAGE))
        config = picture_config(len(self.tokenizer), begin, end, image)
        config._attn_implementation = "eager"  # under torch.compile the fastest on a CPU at these lengths
        self.model = Idefics3ForConditionalGeneration(config)
        self.writer = Writer(self.tokenizer, recipe)
        self.optimizers = list(_optimizers(self.model, recipe))
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, Any]] = []
        self.before: dict[str, Any] | None = None
        self.stop_after: int | None = None
        self._forward = torch.compile(self._losses, dynamic=False) if compiled else self._losses

    def _losses(self, pixels: Tensor, tokens: Tensor, names: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses and likeliest tokens, both of shape `(pictures, length - 1)`, and the loss of naming.

        Naming is what makes a model this small look for things: a shape's name in a question is found in the picture as
        it would be found in text. Without it reading and describing are learned, and finding is not.
        """
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.model.model.connector(self.model.model.vision_model(pixels).last_hidden_state)
            text = self.model.get_input_embeddings()(tokens)
            at = self.writer.image_from
            embedded = torch.cat([text[:, :at], seen.to(text.dtype), text[:, at + IMAGE_TOKENS :]], dim=1)
            hidden = self.model.model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden[:, :-1]).float()
        losses = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        table = normalize(self.model.get_input_embeddings().weight, dim=-1)
        likeness = SHARPNESS * normalize(seen.float(), dim=-1) @ table.T
        naming = -likeness.log_softmax(dim=-1).gather(-1, names).mean()
        return losses.view(len(tokens), -1), logits.argmax(dim=-1), naming

    def run(self) -> None:
        """Train to the end, with a place to go on from every 200 steps, and write the checkpoint."""
        tally = _Tally(self.writer.over)
        while self.step < self.recipe.steps:
            began = time.process_time()
            # Every step has random numbers of its own, so that training goes on as if it had never stopped.
            rng = random.Random(f"pictures {self.recipe.seed} {self.step}")
            batch = self.writer.batch(rng, self.step / self.recipe.steps)
            loss = self._advance(batch, tally)
            self.seconds += time.process_time() - began
            self.step += 1
            if self.step % 50 == 0 or self.step == self.recipe.steps:
                self.curve.append({"step": self.step, "loss": round(loss, 4), "right": tally.drain()})
                print(f"{self.seconds:6.0f} s {json.dumps(self.curve[-1])}", flush=True)
            stops = self.step == self.stop_after
            if stops or self.step % 200 == 0:
                self._keep()
            if stops:
                return
        self._write()

    def _advance(self, batch: Batch, tally: _Tally) -> float:
        losses, likeliest, naming = self._forward(batch.pixels, batch.tokens, batch.names)
        weight = batch.weight[:, 1:]
        loss = (losses * weight).sum() / weight.sum()
        (loss + self.recipe.naming * naming).backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError("the loss is not finite: lower the learning rates")
        tally.add(batch, likeliest)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.recipe.rate(self.step)
            optimizer.step()
            optimizer.zero_grad()
        return value

    def _keep(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "before": self.before,
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        self.out.mkdir(parents=True, exist_ok=True)
        aside = self.out / "resume.tmp"
        torch.save(state, aside)
        aside.replace(self.out / "resume.pt")

    def begin_from(self, folder: Path) -> None:
        """Begin with the weights of another run, which `training.json` then tells of."""
        state = torch.load(folder / "resume.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.before = {key: state[key] for key in ("step", "seconds", "curve")}
        self.before["recipe"] = state.get("recipe")

    def resume(self) -> None:
        """Go on where an earlier run of the same recipe was."""
        path = self.out / "resume.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]
        self.before = state["before"]
        self.model.load_state_dict(state["model"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)

    def _write(self) -> None:
        """The checkpoint, its processor and `training.json`."""
        self.model.to(torch.bfloat16).save_pretrained(self.out)
        make_processor(self.tokenizer).save_pretrained(self.out)
        made = {
            "model": "pocket-idefics3",
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "recipe": asdict(self.recipe),
            "cpu_seconds": round(self.seconds),
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "curve": self.curve,
            "before": self.before,
        }
        (self.out / "training.json").write_text(json.dumps(made, indent=1) + "\n")


def _optimizers(model: nn.Module, recipe: Recipe) -> Iterator[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
    yield torch.optim.Muon(
        [{"params": matrices, "initial_lr": recipe.matrix_rate}],
        lr=recipe.matrix_rate,
        weight_decay=recipe.weight_decay,
    )
    yield torch.optim.AdamW(
        [{"params": others, "initial_lr": recipe.other_rate}], lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0
    )


@torch.no_grad()
def look_for_likes(model: Idefics3ForConditionalGeneration, strength: float = 2.0, blocks: int = 2) -> None:
    """Begin with queries that look for keys like themselves, in the first key-value group of the first blocks.

    Models this small do not come to search by themselves (a mimetic initialisation; Trockman and Kolter 2023). Only the
    channels that the rotary embedding turns slowly take part, so that likeness counts at any distance.
    """
    config = model.config.text_config
    size = config.head_dim
    slow = torch.tensor([i for i in range(size) if i % (size // 2) >= size // 4])
    for block in model.model.text_model.layers[:blocks]:
        likeness = torch.linalg.qr(torch.randn(config.hidden_size, len(slow)))[0].T * strength
        keys, queries = block.self_attn.k_proj.weight, block.self_attn.q_proj.weight
        keys[:size] = 0.0
        keys[slow] = likeness
        for head in range(config.num_attention_heads // config.num_key_value_heads):
            queries[head * size : (head + 1) * size] = 0.0
            queries[head * size + slow] = likeness


class _Tally:
    """The share of answers' tokens that were the likeliest, by kind of question, since the last report."""

    def __init__(self, over: int) -> None:
        self._over = over
        self._right = torch.zeros(len(KINDS), 2, dtype=torch.float64)

    def add(self, batch: Batch, likeliest: Tensor) -> None:
        """Count one batch; the token that ends an answer does not count."""
        target, kind = batch.tokens[:, 1:], batch.kind[:, 1:]
        right, asked = likeliest == target, target != self._over
        for index in range(len(KINDS)):
            mine = asked & (kind == index)
            self._right[index] += torch.tensor([(right & mine).sum(), mine.sum()])

    def drain(self) -> dict[str, float]:
        """The shares; and begin again."""
        shares = {
            name: round(float(hits / count), 3) for name, (hits, count) in zip(KINDS, self._right, strict=True) if count
        }
        self._right.zero_()
        return shares


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the seeing pocket model from nothing.")
    parser.add_argument("--out", type=Path, default=Path("pocket-idefics3"), help="folder to write to, and to go on in")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, help="of the CPU; on a busy machine one is the fastest")
    parser.add_argument("--pictures", type=int, default=Recipe.pictures, help="a step")
    parser.add_argument("--length", type=int, default=Recipe.length, help="tokens a picture")
    parser.add_argument("--naming", type=float, default=Recipe.naming, help="weight of the loss of naming")
    parser.add_argument("--from", dest="begin", type=Path, help="folder of a run to begin with the weights of")
    parser.add_argument("--search", action="store_true", help="begin with queries that look for keys like themselves")
    parser.add_argument("--eager", action="store_true", help="without torch.compile, whose first step takes minutes")
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    recipe = Recipe(
        steps=given.steps, seed=given.seed, pictures=given.pictures, length=given.length, naming=given.naming
    )
    trainer = Trainer(recipe, given.out, compiled=not given.eager)
    if given.begin is not None:
        trainer.begin_from(given.begin)
    if given.search:
        look_for_likes(trainer.model)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
