"""Train a pocket model from nothing: `python -m prunelab.pocket.train --model pocket-llama`."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

from prunelab.pocket.models import CONTEXT, POCKET_MODELS, config_of
from prunelab.pocket.tasks import TASKS
from prunelab.pocket.tokens import BEGIN, END, Batch, Kind, Stream, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        tokens: in all.
        batch: tokens a step.
        lengths: of rows; every fifth step takes the second.
        weights: in the loss, of the tokens of prompts, of running text, and of answers.
        matrix_rate: learning rate of the blocks' matrices (Muon).
        other_rate: of embeddings, norms and biases (AdamW).
        weight_decay: of the matrices.
        warm_up: steps to the full rate.
        decay: the last part of training, in which rates fall to nothing.
        seed: of weights, tokenizer and data.
    """

    tokens: int = 16_000_000
    batch: int = 6144
    lengths: tuple[int, int] = (256, CONTEXT)
    weights: tuple[float, float, float] = (0.3, 0.6, 5.0)
    matrix_rate: float = 0.008
    other_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    decay: float = 0.35
    seed: int = 0

    @property
    def steps(self) -> int:
        """How many."""
        return self.tokens // self.batch

    def rate(self, step: int) -> float:
        """What learning rates are multiplied with."""
        left = (self.steps - step) / (self.decay * self.steps)
        return min(1.0, (step + 1) / self.warm_up, left)


def train(name: str, recipe: Recipe, device: torch.device, out: Path) -> None:
    """Train a model and write its checkpoint and `training.json`, the recipe and the curves.

    Args:
        name: one of `POCKET_MODELS`.
        recipe: how.
        device: where.
        out: folder to write to.
    """
    set_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe.seed, CONTEXT)
    begin, end = (tokenizer.convert_tokens_to_ids(token) for token in (BEGIN, END))
    model = AutoModelForCausalLM.from_config(config_of(name, len(tokenizer), begin, end)).to(device)
    optimizers = list(_optimizers(model, recipe))
    stream = Stream(tokenizer, recipe.seed)
    curve: list[dict[str, Any]] = []
    tally = _Tally()
    began = time.monotonic()
    for step in range(recipe.steps):
        length = recipe.lengths[step % 5 == 4]
        batch = stream.batch(recipe.batch // length, length, step / recipe.steps)
        loss = _step(model, batch, recipe, device, tally)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * recipe.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            point = {"step": step + 1, "tokens": (step + 1) * recipe.batch, "loss": round(loss, 4), **tally.drain()}
            curve.append(point)
            print(f"{time.monotonic() - began:6.0f} s {json.dumps(point)}", flush=True)
    seconds = time.monotonic() - began
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    made = {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "recipe": asdict(recipe),
        "seconds": round(seconds),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "curve": curve,
    }
    (out / "training.json").write_text(json.dumps(made, indent=1) + "\n")


def _optimizers(model: PreTrainedModel, recipe: Recipe) -> Iterator[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    embedding = model.get_input_embeddings().weight
    for parameter in model.parameters():
        (matrices if parameter.ndim == 2 and parameter is not embedding else others).append(parameter)
    yield torch.optim.Muon(
        [{"params": matrices, "initial_lr": recipe.matrix_rate}],
        lr=recipe.matrix_rate,
        weight_decay=recipe.weight_decay,
    )
    yield torch.optim.AdamW(
        [{"params": others, "initial_lr": recipe.other_rate}], lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0
    )


def _step(model: nn.Module, batch: Batch, recipe: Recipe, device: torch.device, tally: _Tally) -> float:
    """Forward and backward; returns the weighted loss in nats a token."""
    tokens = batch.tokens.to(device)
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    target = tokens[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    weights = torch.tensor(recipe.weights)[batch.kind[:, 1:]].to(device)
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    if tally.counts():
        tally.add(batch, losses.detach().cpu(), (logits.argmax(dim=-1) == target).cpu())
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError("the loss is not finite: lower the learning rates")
    return value


class _Tally:
    """Loss and right answers' tokens by task, of every fifth step since the last report."""

    def __init__(self) -> None:
        self._loss = torch.zeros(len(TASKS), 2, dtype=torch.float64)
        self._right = torch.zeros(len(TASKS), 2, dtype=torch.float64)
        self._steps = 0

    def counts(self) -> bool:
        """Whether this step is one that counts."""
        self._steps += 1
        return self._steps % 5 == 0

    def add(self, batch: Batch, losses: Tensor, right: Tensor) -> None:
        """Count one batch."""
        task, answer = batch.task[:, 1:], batch.kind[:, 1:] == Kind.ANSWER
        for index in range(len(TASKS)):
            mine = task == index
            self._loss[index] += torch.tensor([losses[mine].sum(), mine.sum()])
            self._right[index] += torch.tensor([right[mine & answer].sum(), (mine & answer).sum()])

    def drain(self) -> dict[str, dict[str, float]]:
        """Mean loss, and share of answers' tokens that were the likeliest, by task; and begin again."""
        losses = {
            task.name: round(float(total / count), 3)
            for task, (total, count) in zip(TASKS, self._loss, strict=False)
            if count
        }
        right = {
            task.name: round(float(hits / count), 3)
            for task, (hits, count) in zip(TASKS, self._right, strict=False)
            if count
        }
        self._loss.zero_()
        self._right.zero_()
        return {"losses": losses, "right": right}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a pocket model from nothing.")
    parser.add_argument("--model", choices=POCKET_MODELS, default="pocket-llama")
    parser.add_argument("--out", type=Path, help="folder to write to; by default the model's name")
    parser.add_argument("--tokens", type=int, default=Recipe.tokens)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    recipe = Recipe(tokens=given.tokens, seed=given.seed)
    train(given.model, recipe, torch.device(given.device), given.out or Path(given.model))


if __name__ == "__main__":
    main()
