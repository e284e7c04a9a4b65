"""The choice of the next token: every setting is explicit, and every random number has a key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import torch


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling settings; the model's own generation settings are not used.

    Attributes:
        max_new_tokens: maximum number of tokens per completion, its end-of-text token included.
        temperature: divisor of the logits; 0 takes the likeliest token.
        top_p: keep the smallest set of likeliest tokens whose probabilities sum to at least this; 1 keeps all.
        top_k: keep this many likeliest tokens (and ties of the last); None keeps all. Applied before top_p.
        stop: a completion ends where one of these strings appears, and is cut before it.

    Raises:
        InvalidRequest: a setting is out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, valid, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more, or None for all tokens"),
        ):
            if not valid:
                raise InvalidRequest(f"{name} is {getattr(self, name)} but must be {allowed}: change {name}")


def uniform(seed: int, document: str, completion: int, step: int) -> float:
    """A number in [0, 1) for one token of one completion, independent of everything else that is sampled."""
    key = "\x1f".join((str(seed), document, str(completion), str(step))).encode()
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 12) * 2.0**-52


def distribution(logits: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Probabilities after temperature, top_k and top_p, in that order, as in transformers.

    Args:
        logits: (rows, vocabulary).
        settings: with a temperature above 0.
    Returns:
        (rows, vocabulary), float32; each row sums to 1.
    """
    scores = logits.float() / settings.temperature
    if settings.top_k is not None and settings.top_k < scores.shape[-1]:
        least = scores.topk(settings.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probabilities = scores.softmax(-1)
    if settings.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, order, before >= settings.top_p)
        probabilities = probabilities.masked_fill(dropped, 0.0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def choose(logits: torch.Tensor, settings: SamplingSettings, uniforms: torch.Tensor) -> torch.Tensor:
    """Next tokens, (rows,), from logits (rows, vocabulary) and numbers in [0, 1), (rows,) float64.

    Sampling inverts the cumulative distribution over token ids, so a rounding error changes the choice only if a number
    lies within it of a boundary.
    """
    if settings.temperature == 0:
        return logits.float().argmax(-1)
    probabilities = distribution(logits, settings)
    # MPS devices have no float64: compute the sums on the CPU.
    summed = probabilities.to("cpu" if logits.device.type == "mps" else logits.device).double().cumsum(-1)
    chosen = torch.searchsorted(summed, uniforms.to(summed.device)[:, None] * summed[:, -1:], right=True)
    return chosen.squeeze(-1).to(logits.device)
