"""The choice of the next token: every setting explicit, every random number a function of what it is for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from prunelab.errors import InvalidRequest
from prunelab.io.lazy import torch


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn. Nothing is taken from a model's own generation settings.

    Attributes:
        max_new_tokens: tokens a completion at most, its end-of-text token included.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: keep the fewest likeliest tokens that together have this probability; 1 keeps all.
        top_k: keep this many likeliest tokens (and ties of the last); None keeps all. Applied before top_p.
        stop: a completion ends where one of these strings appears, and is cut before it.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is outside its range: InvalidRequest."""
        for name, valid, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more, or None for all tokens"),
        ):
            if not valid:
                raise InvalidRequest(f"{name} is {getattr(self, name)}; allowed is {allowed}: change {name}")


def uniform(seed: int, document: str, completion: int, step: int) -> float:
    """A number in [0, 1) for one token of one completion, whatever else is sampled before or beside it."""
    key = "\x1f".join((str(seed), document, str(completion), str(step))).encode()
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 12) * 2.0**-52


def distribution(logits: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Probabilities after temperature, top_k and top_p, in that order, as the transformers library does.

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

    Where sampled, by inversion over the token ids: rounding errors move the choice only where a number falls
    within them of a boundary.
    """
    if settings.temperature == 0:
        return logits.float().argmax(-1)
    probabilities = distribution(logits, settings)
    # On a Mac's device there is no float64: the sums are made beside it.
    summed = probabilities.to("cpu" if logits.device.type == "mps" else logits.device).double().cumsum(-1)
    chosen = torch.searchsorted(summed, uniforms.to(summed.device)[:, None] * summed[:, -1:], right=True)
    return chosen.squeeze(-1).to(logits.device)
