"""Shared parts of the pocket models' training: learning rates, optimizers, metrics, and the training record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn


@dataclass(frozen=True)
class Rates:
    """Learning rates and their schedule.

    Attributes:
        matrix_rate: learning rate of the blocks' matrices (Muon).
        match_rate: learning rate of query and key projections, low enough to preserve the initial heads.
        other_rate: learning rate of embeddings, norms, biases and patches (AdamW).
        weight_decay: weight decay of the matrices.
        warm_up: number of warm-up steps.
        decay: final share of training in which the rates decay to zero.
    """

    matrix_rate: float = 0.01
    match_rate: float = 0.003
    other_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    decay: float = 0.5

    def factor(self, step: int, steps: int) -> float:
        """The factor of the learning rates in step `step` of `steps`."""
        left = (steps - step) / (self.decay * steps)
        return min(1.0, (step + 1) / self.warm_up, left)


class Optimizers:
    """Muon for the blocks' matrices, AdamW for the rest.

    Args:
        model: the model to train.
        rates: the learning rates.
        steps: total number of steps.
    """

    def __init__(self, model: nn.Module, rates: Rates, steps: int) -> None:
        self._rates, self._steps, self._step = rates, steps, 0
        self._optimizers = list(_optimizers(model, rates))

    def advance(self) -> None:
        """Take an optimizer step and reset the gradients."""
        factor = self._rates.factor(self._step, self._steps)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimizer.step()
            optimizer.zero_grad()
        self._step += 1


def _optimizers(model: nn.Module, rates: Rates) -> Iterator[torch.optim.Optimizer]:
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matches: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    remaining: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2 or id(parameter) in tables:
            remaining.append(parameter)
        else:
            (matches if name.endswith(("q_proj.weight", "k_proj.weight")) else matrices).append(parameter)
    groups = ((matrices, rates.matrix_rate), (matches, rates.match_rate))
    yield torch.optim.Muon(
        [{"params": group, "initial_lr": rate} for group, rate in groups],
        lr=rates.matrix_rate,
        weight_decay=rates.weight_decay,
    )
    yield torch.optim.AdamW(
        [{"params": remaining, "initial_lr": rates.other_rate}],
        lr=rates.other_rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )


class Mean:
    """Running means over tokens by group, since the last `drain`.

    Args:
        names: names of the groups, by index.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sums = torch.zeros(len(names), 2, dtype=torch.float64)

    def add(self, values: Tensor, belongs: Tensor, counts: Tensor) -> None:
        """Add one batch; all arguments have the same shape.

        Args:
            values: losses, or whether tokens are correct.
            belongs: index of each token's group.
            counts: whether a token counts.
        """
        for index in range(len(self._names)):
            mine = counts & (belongs == index)
            self._sums[index] += torch.tensor([values[mine].sum(), mine.sum()], dtype=torch.float64)

    def drain(self) -> dict[str, float]:
        """Return the means of all groups with tokens, and reset."""
        means = {
            name: round(float(total / count), 3)
            for name, (total, count) in zip(self._names, self._sums, strict=True)
            if count
        }
        self._sums.zero_()
        return means


def can_compile() -> bool:
    """Whether a C++ compiler, which compiled steps need, is available."""
    return any(map(shutil.which, ("c++", "g++", "clang++", "cl")))


def write_record(
    out: Path,
    name: str,
    model: nn.Module,
    recipe: Rates,
    seconds: float,
    curve: Sequence[dict[str, Any]],
    **more: Any,
) -> None:
    """Write `training.json` into a checkpoint's folder.

    Args:
        out: the checkpoint's folder.
        name: name of the model.
        model: the trained model.
        recipe: the training configuration, a dataclass.
        seconds: duration of the training.
        curve: losses and accuracies during training.
        **more: further entries of the record.
    """
    record = {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "recipe": asdict(recipe),
        "seconds": round(seconds),
        "device": str(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        **more,
        "curve": list(curve),
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
