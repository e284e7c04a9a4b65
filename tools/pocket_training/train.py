"""Train a pocket model from scratch: `python -m tools.pocket_training.train --model pocket-llama`."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from prunelab.models.bundled import CONTEXT, POCKET_MODELS, config_of
from prunelab.pocket.tasks import TASKS
from prunelab.pocket.turns import BEGIN, END
from tools.pocket_training.initialization import give_heads
from tools.pocket_training.optimizer import Mean, Optimizers, Rates, can_compile, write_record
from tools.pocket_training.tokens import Batch, Kind, Stream, train_tokenizer

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Recipe(Rates):
    """The training configuration.

    Attributes:
        tokens: total number of tokens.
        batch: tokens per step.
        lengths: row lengths; every fifth step uses the second.
        weights: loss weights of prompt, running-text and answer tokens.
        seed: random seed of weights, tokenizer and data.
    """

    tokens: int = 12_000_000
    batch: int = 2304
    lengths: tuple[int, int] = (256, CONTEXT)
    weights: tuple[float, float, float] = (0.3, 0.6, 5.0)
    seed: int = 0

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.tokens // self.batch


def train(name: str, recipe: Recipe, device: torch.device, out: Path, compiled: bool, after: Path | None) -> None:
    """Train a model, and write its checkpoint and `training.json` with the recipe and the curves.

    Args:
        name: a name of `POCKET_MODELS`.
        recipe: the training configuration.
        device: device to train on.
        out: output folder.
        compiled: whether the step is compiled, which needs a C++ compiler and makes it about twice as fast.
        after: folder of an earlier training to continue, without drills; by default, train from scratch.
    """
    set_seed(recipe.seed)
    if after:
        tokenizer = AutoTokenizer.from_pretrained(after)
        model = AutoModelForCausalLM.from_pretrained(after, dtype=torch.float32).to(device)
    else:
        tokenizer = train_tokenizer(recipe.seed, CONTEXT)
        begin, end = (tokenizer.convert_tokens_to_ids(token) for token in (BEGIN, END))
        model = AutoModelForCausalLM.from_config(config_of(name, len(tokenizer), begin, end)).to(device)
        give_heads(model, recipe.seed)
    model.train()
    model.set_attn_implementation("eager")  # faster to compile and, at this size, to run
    forward = torch.compile(_losses, dynamic=False) if compiled else _losses
    optimizers = Optimizers(model, recipe, recipe.steps)
    stream = Stream(tokenizer, recipe.seed)
    curve: list[dict[str, Any]] = []
    tally = _Tally()
    began = time.monotonic()
    for step in range(recipe.steps):
        length = recipe.lengths[step % 5 == 4]
        batch = stream.batch(recipe.batch // length, length, 1.0 if after else step / recipe.steps)
        loss = _step(partial(forward, model), batch, recipe, device, tally)
        optimizers.advance()
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            point = {"step": step + 1, "tokens": (step + 1) * recipe.batch, "loss": round(loss, 4), **tally.drain()}
            curve.append(point)
            print(f"{time.monotonic() - began:6.0f} s {json.dumps(point)}", flush=True)
    seconds = time.monotonic() - began
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    shares = {task.name: [task.share, task.share * task.early] for task in TASKS}
    before = json.loads((after / "training.json").read_text(encoding="utf-8")) if after else None
    write_record(out, name, model, recipe, seconds, curve, shares=shares, after=before)


def _losses(model: nn.Module, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted mean loss in nats per token, and for each token after the first its loss and whether it was top-1.

    Matrix products are in bfloat16, the data type of the checkpoint.
    """
    with torch.autocast(tokens.device.type, torch.bfloat16):
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    target = tokens[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    return (losses * weights).sum() / weights.sum(), losses.detach(), logits.argmax(dim=-1) == target


def _step(forward: Forward, batch: Batch, recipe: Recipe, device: torch.device, tally: _Tally) -> float:
    """Forward and backward pass; returns the weighted loss in nats per token."""
    weights = torch.tensor(recipe.weights)[batch.kind[:, 1:]]
    loss, losses, right = forward(batch.tokens.to(device), weights.to(device))
    loss.backward()
    if tally.counts():
        tally.add(batch, losses.cpu(), right.cpu())
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError("the loss is not finite: lower the learning rates")
    return value


class _Tally:
    """Loss and answer accuracy by task, over every fifth step since the last report."""

    def __init__(self) -> None:
        names = [task.name for task in TASKS]
        self._loss, self._right = Mean(names), Mean(names)
        self._steps = 0

    def counts(self) -> bool:
        """Whether this step is counted."""
        self._steps += 1
        return self._steps % 5 == 0

    def add(self, batch: Batch, losses: Tensor, right: Tensor) -> None:
        """Count one batch."""
        task, answer = batch.task[:, 1:], batch.kind[:, 1:] == Kind.ANSWER
        self._loss.add(losses, task, torch.ones_like(answer))
        self._right.add(right, task, answer)

    def drain(self) -> dict[str, dict[str, float]]:
        """Return the mean loss and the top-1 accuracy of answer tokens, by task, and reset."""
        return {"losses": self._loss.drain(), "right": self._right.drain()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a pocket model from scratch.")
    parser.add_argument("--model", choices=POCKET_MODELS, default="pocket-llama")
    parser.add_argument("--out", type=Path, help="output folder; by default the model's name")
    parser.add_argument("--tokens", type=int, default=Recipe.tokens)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="more than one rarely pays at this size")
    parser.add_argument(
        "--no-compile", action="store_true", help="do not compile the step; implied if there is no C++ compiler"
    )
    parser.add_argument("--after", type=Path, help="folder of an earlier training to continue")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = Recipe(tokens=given.tokens, seed=given.seed)
    compiled = can_compile() and not given.no_compile
    train(given.model, recipe, torch.device(given.device), given.out or Path(given.model), compiled, given.after)


if __name__ == "__main__":
    main()
