"""Losses of text windows, computed without storing all their logits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import xxhash

from prunelab.calibration.corpus import CalibrationSet
from prunelab.errors import NonFiniteValue
from prunelab.io.fingerprint import tensor_bytes
from prunelab.io.lazy import F, inference_mode, torch
from prunelab.models.families import decoder_of
from prunelab.models.rotary import RotaryLengths
from prunelab.models.tokenizer_validation import check_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunelab.inference.shared_blocks import SharedPrefixModels
    from prunelab.models.loading import LanguageModel

TOKENS_A_BATCH = 4096
_LOGIT_BYTES = 1 << 28


def logits_of(model: LanguageModel, hidden: Tensor) -> Tensor:
    """Float32 logits of final hidden states, shape `(..., hidden)` to `(..., vocabulary)`."""
    logits: Tensor = model.model.get_output_embeddings()(hidden).float()
    cap = getattr(model.model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


@inference_mode
def token_losses(model: LanguageModel, token_ids: Tensor, tokens_a_batch: int = TOKENS_A_BATCH) -> Tensor:
    """Cross-entropy of every token but the first, in nats.

    Args:
        model: the model.
        token_ids: shape `(windows, tokens)`, no padding.
        tokens_a_batch: tokens per batch; in float32 the result depends on it only by rounding.

    Returns:
        Shape `(windows, tokens - 1)`, float32, on the CPU.

    Raises:
        NonFiniteValue: a loss is NaN or infinite; the message gives the first such window.
    """
    check_ids(model.model, int(token_ids.max()), "the text")
    if model.shared is None:
        batches = token_ids.to(model.device).split(max(1, tokens_a_batch // token_ids.shape[1]))
        result = torch.cat([_losses(model, ids, _hidden(model.model, ids)) for ids in batches])
    else:
        question = (
            "losses",
            tokens_a_batch,
            tuple(token_ids.shape),
            xxhash.xxh3_128_hexdigest(tensor_bytes(token_ids)),
        )
        result = model.shared.answer(model.model, question, partial(_losses_together, model, token_ids, tokens_a_batch))
    bad = ~torch.isfinite(result).all(dim=1)
    if bad.any():
        raise NonFiniteValue(
            f"the loss of {model.name} is NaN or infinite in window {int(bad.nonzero()[0])} of {len(result)}: the "
            "weights may be damaged, or the dtype may overflow (try --dtype float32)"
        )
    return result


def _losses_together(
    model: LanguageModel, token_ids: Tensor, tokens_a_batch: int, together: SharedPrefixModels
) -> list[Tensor]:
    """Losses of all models of the shared evaluation, each of shape `(windows, tokens - 1)`."""
    shared = [model.with_model(sibling) for sibling in together.models]
    losses_of: list[list[Tensor]] = [[] for _ in shared]
    for ids in token_ids.to(model.device).split(max(1, tokens_a_batch // token_ids.shape[1])):
        for index, hidden in together.run(partial(_hidden, ids=ids)):
            losses_of[index].append(_losses(shared[index], ids, hidden))
    return [torch.cat(losses) for losses in losses_of]


def _hidden(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Final hidden states, shape `(windows, tokens, hidden)`."""
    rotary = RotaryLengths([model])
    with rotary.fixed(rotary.key(ids.shape[1])):
        hidden: Tensor = decoder_of(model).body(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def _losses(model: LanguageModel, ids: Tensor, hidden: Tensor) -> Tensor:
    """Losses of a batch of windows, shape `(windows, tokens - 1)`, on the CPU."""
    step = max(1, _LOGIT_BYTES // (4 * model.model.get_output_embeddings().weight.shape[0]))
    states, targets = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    parts = [
        F.cross_entropy(logits_of(model, part), target, reduction="none")
        for part, target in zip(states.split(step), targets.split(step), strict=True)
    ]
    return torch.cat(parts).reshape(len(ids), -1).cpu()


def mean_loss(model: LanguageModel, held_out: Tensor | CalibrationSet) -> float:
    """Mean cross-entropy per predicted token, in nats.

    Args:
        model: the model.
        held_out: text windows, shape `(windows, tokens)`; or images with text, of which only text tokens count.
    """
    if isinstance(held_out, CalibrationSet):
        return _mean_loss_of_pairs(model, held_out)
    return token_losses(model, held_out).double().mean().item()


@inference_mode
def mean_divergence(model: LanguageModel, whole: LanguageModel, held_out: Tensor | CalibrationSet) -> float:
    """Mean Kullback-Leibler divergence per token, in nats, of a model's predictions from the dense model's.

    Unlike the loss of a text, it cannot be lowered by losing the dense model's overconfidence. Predictions at the
    positions of image features do not count: no model is trained on them.

    Args:
        model: the pruned model.
        whole: the dense model.
        held_out: text windows, shape `(windows, tokens)`; or images with text.
    """
    total, count = 0.0, 0
    for states, reference in zip(_states(model, held_out), _states(whole, held_out), strict=True):
        step = max(1, _LOGIT_BYTES // (4 * model.model.get_output_embeddings().weight.shape[0]))
        for part, reference_part in zip(states.split(step), reference.split(step), strict=True):
            log_probabilities, reference_log_probabilities = (
                logits_of(model, part).log_softmax(dim=-1),
                logits_of(whole, reference_part).log_softmax(dim=-1),
            )
            total += (
                F.kl_div(log_probabilities, reference_log_probabilities, reduction="sum", log_target=True)
                .double()
                .item()
            )
            count += len(part)
    return total / count


def _states(model: LanguageModel, held_out: Tensor | CalibrationSet) -> Iterator[Tensor]:
    """Final hidden states of all predicting tokens, in batches of shape `(tokens, hidden)`."""
    if not isinstance(held_out, CalibrationSet):
        for ids in held_out.to(model.device).split(max(1, TOKENS_A_BATCH // held_out.shape[1])):
            yield _hidden(model.model, ids).flatten(0, 1)
        return
    for index, row in enumerate(held_out.token_ids.to(model.device)):
        mask = held_out.mask_of(index, index + 1)
        ids = row if mask is None else row[mask[0].to(row.device)]
        images = {} if held_out.pairs is None else held_out.pairs.of(index, index + 1)
        yield model.decoder.run(ids[None], None, images)[0][model.decoder.loss_mask(ids[None])[0]]


@inference_mode
def _mean_loss_of_pairs(model: LanguageModel, held_out: CalibrationSet) -> float:
    """Mean loss over image-text pairs; positions of image features are not predicted."""
    total, count = 0.0, 0
    for index, row in enumerate(held_out.token_ids.to(model.device)):
        mask = held_out.mask_of(index, index + 1)
        ids = row if mask is None else row[mask[0].to(row.device)]
        images = {} if held_out.pairs is None else held_out.pairs.of(index, index + 1)
        hidden = model.decoder.run(ids[None], None, images)[0, :-1]
        chosen = model.decoder.loss_mask(ids[None])[0, :-1]
        losses = F.cross_entropy(logits_of(model, hidden[chosen]), ids[1:][chosen], reduction="none")
        total += float(losses.double().sum())
        count += int(chosen.sum())
    return total / count
