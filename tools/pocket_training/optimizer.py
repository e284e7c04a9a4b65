"""What all trainings of pocket models share: rates, optimizers, the count of what was right, and the record of it."""

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
    """How fast to learn.

    Attributes:
        matrix_rate: learning rate of the blocks' matrices (Muon).
        match_rate: of those that make queries and keys, lest the heads given at the start be lost before they serve.
        other_rate: of embeddings, norms, biases and patches (AdamW).
        weight_decay: of the matrices.
        warm_up: steps to the full rate.
        decay: the last part of training, in which rates fall to nothing.
    """

    matrix_rate: float = 0.01
    match_rate: float = 0.003
    other_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    decay: float = 0.5

    def factor(self, step: int, steps: int) -> float:
        """What learning rates are multiplied with in a step of so many."""
        left = (steps - step) / (self.decay * steps)
        return min(1.0, (step + 1) / self.warm_up, left)


class Optimizers:
    """Muon for the blocks' matrices, AdamW for the rest.

    Args:
        model: to be trained.
        rates: how fast.
        steps: in all.
    """

    def __init__(self, model: nn.Module, rates: Rates, steps: int) -> None:
        self._rates, self._steps, self._step = rates, steps, 0
        self._optimizers = list(_optimizers(model, rates))

    def advance(self) -> None:
        """Take the next step along the gradients, and forget them."""
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
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2 or id(parameter) in tables:
            others.append(parameter)
        else:
            (matches if name.endswith(("q_proj.weight", "k_proj.weight")) else matrices).append(parameter)
    groups = ((matrices, rates.matrix_rate), (matches, rates.match_rate))
    yield torch.optim.Muon(
        [{"params": group, "initial_lr": rate} for group, rate in groups],
        lr=rates.matrix_rate,
        weight_decay=rates.weight_decay,
    )
    yield torch.optim.AdamW(
        [{"params": others, "initial_lr": rates.other_rate}], lr=rates.other_rate, betas=(0.9, 0.98), weight_decay=0.0
    )


class Mean:
    """A mean over tokens by what they belong to, since the last look at it.

    Args:
        names: of what tokens belong to, in the order of their numbers.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sums = torch.zeros(len(names), 2, dtype=torch.float64)

    def add(self, values: Tensor, belongs: Tensor, counts: Tensor) -> None:
        """Take in one batch; all arguments have one shape.

        Args:
            values: losses, or whether tokens were right.
            belongs: numbers of the names.
            counts: whether a token counts.
        """
        for index in range(len(self._names)):
            mine = counts & (belongs == index)
            self._sums[index] += torch.tensor([values[mine].sum(), mine.sum()], dtype=torch.float64)

    def drain(self) -> dict[str, float]:
        """The means of all names that had tokens; and begin again."""
        found = {
            name: round(float(total / count), 3)
            for name, (total, count) in zip(self._names, self._sums, strict=True)
            if count
        }
        self._sums.zero_()
        return found


def can_compile() -> bool:
    """Whether there is the C++ compiler that compiled steps need."""
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
    """Write `training.json` beside a checkpoint.

    Args:
        out: the checkpoint's folder.
        name: of the model.
        model: as trained.
        recipe: how; a dataclass of more than rates.
        seconds: that it took.
        curve: losses and right answers on the way.
        **more: what else this training should remember.
    """
    made = {
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
    (out / "training.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
