"""Structured initialization of a pocket model: previous-token heads and matching heads instead of pure noise.

Transformers of this size need millions of tokens until a head attends to the previous token and another to an earlier
occurrence of the current one, which in-context abilities build on (Olsson et al. 2022, "In-context Learning and
Induction Heads"). Random weights with the structure of trained ones shorten this phase (Trockman and Kolter 2023,
"Mimetic Initialization of Self-Attention Layers"). Here the heads of the first block attend one to four tokens back,
and the heads of the next blocks attend to tokens that match in themselves or in their predecessors. No weight is
frozen: training changes these weights like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma2Config, PreTrainedModel

EMBEDDING = 0.5
"""Standard deviation of the embeddings, and norm of their shared direction, which position heads need."""
LOGITS = 0.1
"""Weight of the last norm: the embeddings, which are also the output weights, are large compared with the blocks'
outputs, so that a token's identity persists through all blocks."""
HELD, FOUND = 0.7, 0.3
"""Outputs of previous-token heads and of matching heads, relative to their inputs."""
PLACE, MATCH = 25.0, 2.5
"""Logit of the position that a head of the first block attends to; scale of matching queries and keys."""
QUICK, SLOW = 5, 6
"""The first rotary channels encode position, which a head that matches over any distance must not use."""
AFTER_NORM = -0.7
"""Weight of Gemma-2's norm after a sublayer; with the default of zero, noise would dominate the embeddings."""


@dataclass(frozen=True)
class Group:
    """The tokens that two heads with shared keys and values match; 0 is the token itself, n the token n before it.

    Attributes:
        keys: token held by the keys.
        queries: token held by the queries of each head.
        value: token read at a match.
        place: subspace into which the first head writes. If it already holds the same token, the value doubles, which
            suffices to compare the two.
    """

    keys: tuple[int, ...]
    queries: tuple[tuple[int, ...], tuple[int, ...]]
    value: int
    place: int = 0


MATCHING: tuple[tuple[Group, Group], ...] = (
    (Group((1,), ((0,), (1,)), 0), Group((2,), ((1,), (0,)), 0)),
    (Group((0, 1, 4), ((0, 1), (0, 1, 4)), 4, place=4), Group((0, 2), ((0,), (0, 2)), 2, place=2)),
    (Group((4,), ((4,), (0,)), 1), Group((2,), ((2,), (1,)), 0)),
    (Group((0,), ((2,), (3,)), 2), Group((0,), ((0,), (1,)), 1)),
    (Group((0,), ((0,), (4,)), 1), Group((3,), ((1,), (0,)), 0)),
    (Group((0,), ((0,), (2,)), 4), Group((4,), ((4,), (1,)), 0)),
    (Group((0,), ((0,), (0,)), 2), Group((2,), ((1,), (2,)), 0)),
    (Group((0,), ((0,), (0,)), 2), Group((0,), ((0,), (1,)), 4)),
    (Group((0,), ((0,), (0,)), 2), Group((1,), ((0,), (1,)), 0)),
)
"""The matches of blocks 1 to 9 and both key-value groups. Block 2 finds tokens that agree in several positions, as a
claim and the sentence that it repeats do, and reads the subject there. The last blocks point: they attend to the token
that the model is about to predict and read the token two positions before it, which is a choice's letter."""


@torch.no_grad()
def give_heads(model: PreTrainedModel, seed: int) -> None:
    """Replace the embeddings and all attention weights.

    Args:
        model: a new model with two query heads for each of two key-value heads.
        seed: random seed.
    """
    draws = torch.Generator().manual_seed(seed)
    hidden, size = model.config.hidden_size, model.config.head_dim
    common = torch.randn(hidden, generator=draws).sign() / hidden**0.5
    embedding = model.get_input_embeddings().weight
    embedding.normal_(generator=draws).add_(hidden**0.5 * common)
    if isinstance(model.config, Gemma2Config):  # scales its embeddings at the input only
        embedding.mul_(EMBEDDING / hidden**0.5)
    else:
        embedding.mul_(EMBEDDING)
        model.get_decoder().norm.weight.fill_(LOGITS)

    def subspace() -> Tensor:
        drawn = nn.init.orthogonal_(torch.empty(hidden, size), generator=draws)
        return drawn - torch.outer(common, common @ drawn)

    held = [subspace() for _ in range(5)]
    first, *others = model.get_decoder().layers
    _look_back(first.self_attn, common, held, theta=model.config.rope_parameters["rope_theta"])
    slow = (torch.arange(size) % (size // 2) >= SLOW).float()[:, None] * MATCH
    for block, groups in zip(others, MATCHING, strict=False):
        attention = block.self_attn
        for number, group in enumerate(groups):
            own = slice(number * size, (number + 1) * size)
            attention.k_proj.weight[own] = slow * torch.stack([held[place] for place in group.keys]).sum(0).T
            attention.v_proj.weight[own] = held[group.value].T
            for index, query in enumerate(group.queries):
                rows = slice((2 * number + index) * size, (2 * number + index + 1) * size)
                attention.q_proj.weight[rows] = slow * torch.stack([held[place] for place in query]).sum(0).T
                attention.o_proj.weight[:, rows] = FOUND * (subspace() if index else held[group.place])
    for block in (first, *others):
        if hasattr(block, "post_feedforward_layernorm"):
            block.post_attention_layernorm.weight.fill_(AFTER_NORM)
            block.post_feedforward_layernorm.weight.fill_(AFTER_NORM)


def _look_back(attention: Any, common: Tensor, held: Sequence[Tensor], theta: float) -> None:
    """Head n - 1 attends to the token n positions back and writes its identity into `held[n]`.

    Queries and keys are constants, rotated against each other by n positions, so that rotary embeddings favour that
    position.
    """
    hidden, size = held[0].shape
    turns = theta ** (-torch.arange(size // 2) / (size // 2))
    strength = (PLACE * size**0.5 / QUICK) ** 0.5 * (torch.arange(size // 2) < QUICK)
    constant = common / (hidden / 2) ** 0.5  # half of a normalised embedding is the common direction
    for group in range(2):
        own = slice(group * size, (group + 1) * size)
        ahead = torch.cat([strength, torch.zeros(size // 2)])
        attention.k_proj.weight[own] = torch.outer(ahead, constant)
        attention.v_proj.weight[own] = held[0].T
    for head in range(4):
        rows = slice(head * size, (head + 1) * size)
        angle = turns * (head + 1)
        turned = torch.cat([strength * angle.cos(), -strength * angle.sin()])
        attention.q_proj.weight[rows] = torch.outer(turned, constant)
        attention.o_proj.weight[:, rows] = HELD * held[head + 1]
