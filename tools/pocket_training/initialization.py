"""Where the training of a pocket model starts: heads that look back and heads that match, instead of noise alone.

Transformers of this size spend millions of tokens before the first head attends to the token before its own, and the
first head to an earlier occurrence of it, on which everything else that reads its context builds (Olsson et al. 2022,
"In-context Learning and Induction Heads"). Random weights that resemble trained ones in structure shorten that
(Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers"). Here the first block's heads look one to
four tokens back, and the next blocks' heads look for tokens that match in what they are or in what stands before them.
Nothing is frozen: training changes these weights like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma2Config, PreTrainedModel

EMBEDDING = 0.5
"""Standard deviation of embeddings, and size of the direction that all share: without one, no head knows of places."""
LOGITS = 0.1
"""Weight of the last norm: embeddings are large beside what blocks add, so that a token stays what it is through all
of them, and are the output's weights as well."""
HELD, FOUND = 0.7, 0.3
"""What heads that look back, and heads that match, add to the residual stream, relative to what they read."""
PLACE, MATCH = 25.0, 2.5
"""Logit of the place that a head of the first block looks at; scale of queries and keys that match."""
QUICK, SLOW = 5, 6
"""The first rotary channels tell places apart; a head that matches over any distance has no use for those."""
AFTER_NORM = -0.7
"""Gemma-2 normalises what a sublayer adds; a weight of zero would let noise drown the embeddings."""


@dataclass(frozen=True)
class Group:
    """What the two heads that share keys and values look for; 0 is a token itself, n the token n places before it.

    Attributes:
        keys: what keys hold.
        queries: what the queries of each head hold.
        value: what is read where they match.
        place: where the first head writes what it read. Written where the own such word is held, it is doubled there
            if both are the same, which is all that it takes to compare them.
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
"""For blocks 1 to 9 and both key-value groups. Block 2 finds what agrees in several places at once, as a claim and the
sentence that it repeats do, and reads of whom it is told there. The last blocks point: to the token that the model has
in mind by then, for what stands two places before it, which is a choice's letter."""


@torch.no_grad()
def give_heads(model: PreTrainedModel, seed: int) -> None:
    """Replace the embeddings and all attention weights.

    Args:
        model: a new one, with two query heads for each of two key-value heads.
        seed: of every draw.
    """
    draws = torch.Generator().manual_seed(seed)
    hidden, size = model.config.hidden_size, model.config.head_dim
    common = torch.randn(hidden, generator=draws).sign() / hidden**0.5
    embedding = model.get_input_embeddings().weight
    embedding.normal_(generator=draws).add_(hidden**0.5 * common)
    if isinstance(model.config, Gemma2Config):  # its embeddings are scaled already, and only on their way in
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
    """Head n - 1 attends to the token n places back and writes what it is into `held[n]`.

    Queries and keys are constants, turned against each other by n places, so that rotary embeddings favour that place.
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
