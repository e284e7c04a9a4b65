"""Losses of windows of text, computed without ever holding all their logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from prunelab.errors import NonFiniteValue
from prunelab.loading import LanguageModel

TOKENS_A_BATCH = 4096
_LOGIT_BYTES = 1 << 28


def logits_of(model: LanguageModel, hidden: Tensor) -> Tensor:
    """Logits in float32 of final hidden states, shape `(..., hidden)` to `(..., vocabulary)`."""
    logits: Tensor = model.model.get_output_embeddings()(hidden).float()
    cap = getattr(model.model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


@torch.inference_mode()
def token_losses(model: LanguageModel, token_ids: Tensor, tokens_a_batch: int = TOKENS_A_BATCH) -> Tensor:
    """Cross-entropy of every token but the first, in nats.

    Args:
        model: the model.
        token_ids: shape `(windows, tokens)`, no padding.
        tokens_a_batch: how many tokens go through at once; in float32 the result depends on it by rounding only.

    Returns:
        Shape `(windows, tokens - 1)`, float32, on the CPU.

    Raises:
        NonFiniteValue: naming the first window with a NaN or infinite loss.
    """
    losses = []
    vocabulary = model.model.get_output_embeddings().weight.shape[0]
    step = max(1, _LOGIT_BYTES // (4 * vocabulary))
    for ids in token_ids.to(model.device).split(max(1, tokens_a_batch // token_ids.shape[1])):
        hidden = model.decoder.body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        targets = ids[:, 1:].flatten()
        parts = [
            F.cross_entropy(logits_of(model, part), target, reduction="none")
            for part, target in zip(hidden.split(step), targets.split(step), strict=True)
        ]
        losses.append(torch.cat(parts).reshape(len(ids), -1).cpu())
    result = torch.cat(losses)
    bad = ~torch.isfinite(result).all(dim=1)
    if bad.any():
        raise NonFiniteValue(
            f"{model.name} gives NaN or infinity in window {int(bad.nonzero()[0])} of {len(result)}: the weights may "
            "be damaged, or the dtype too narrow (try --dtype float32)"
        )
    return result


def mean_loss(model: LanguageModel, token_ids: Tensor) -> float:
    """Mean cross-entropy a predicted token in nats; `token_ids` has shape `(windows, tokens)`."""
    return token_losses(model, token_ids).double().mean().item()
