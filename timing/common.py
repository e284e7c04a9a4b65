"""Shared parts of the timing scripts: a random model of 109 million parameters, and noise-robust time ratios."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel


def random_llama(blocks: int = 12) -> PreTrainedModel:
    """A Llama of GPT-2's size: 12 blocks of width 768 with random weights.

    PyTorch is limited to one thread, since waiting threads would measure the machine's other load.
    """
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=blocks, num_attention_heads=12,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model: PreTrainedModel = LlamaForCausalLM(config).eval()
    return model


Clock = Callable[[], float]


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Time of one call, by the wall clock or another clock."""
    start = clock()
    work()
    return clock() - start


def ratio(
    measured: Callable[[], object],
    reference: Callable[[], object],
    rounds: int = 5,
    clock: Clock = time.perf_counter,
) -> tuple[float, float]:
    """Time of the measured work relative to the reference, and its spread over the rounds.

    The two alternate, and each round gives one ratio, so that other load on the machine affects both. Returns the
    median and half the interquartile range; the first round is a warm-up.
    """
    return middle([seconds(measured, clock) / seconds(reference, clock) for _ in range(rounds + 1)][1:])


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The median and half the interquartile range."""
    ordered, count = sorted(values), len(values)
    return median(ordered), (ordered[(3 * count) // 4] - ordered[count // 4]) / 2


def report(what: str, value: float, spread: float, target: float) -> None:
    """Print the value, its spread, and whether the target is met."""
    verdict = "met" if value <= target else "MISSED"
    print(f"{what}: {value:.3f} (± {spread:.3f}), at most {target:.2f}: {verdict}", flush=True)


def keep(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write measurements for the documentation, with a description of the machine; do nothing without a path."""
    if path is not None:
        machine = {
            "processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine, **results}, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    """The processor's name, if the system reports it."""
    reported = Path("/proc/cpuinfo")
    lines = reported.read_text(encoding="utf-8").splitlines() if reported.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
