"""The language model of a model that sees, taken out as a checkpoint of its own, and put back, pruned or not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from prunelab.errors import InvalidRequest, UnsupportedModel
from prunelab.io.lazy import torch, transformers
from prunelab.models.families import ModelFamily, families
from prunelab.models.loading import LanguageModel
from prunelab.models.tying import is_tied, with_flag
from prunelab.pruning.plan import PruningPlan, make_plan
from prunelab.pruning.surgery import bring_buffers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

MUST_FIT = ("hidden_size", "vocab_size")
"""What the rest of the model reads from its language model."""


def extract_language_model(whole: LanguageModel) -> LanguageModel:
    """The language model inside a model that sees, its weights shared with it.

    Raises:
        UnsupportedModel: the model sees nothing.
    """
    family = _seeing(whole)
    config = copy.deepcopy(whole.model.config.get_text_config())
    config.tie_word_embeddings = is_tied(whole.model)
    inside = families[str(family.language_family)]
    inner = f"{family.decoder}."
    state = whole.model.state_dict()
    tensors = {f"{inside.decoder}.{name.removeprefix(inner)}": t for name, t in state.items() if name.startswith(inner)}
    tensors |= {name: t for name, t in state.items() if name.startswith("lm_head.")}
    model = _build(inside, config, type(whole.model).__name__ == family.mixed_class, tensors)
    bring_buffers({name.removeprefix(inner): b for name, b in whole.model.named_buffers() if name.startswith(inner)},
                  model.get_submodule(inside.decoder))  # fmt: skip
    model.generation_config = copy.deepcopy(whole.model.generation_config)
    model.name_or_path = whole.model.name_or_path  # whose licence it has
    return LanguageModel(f"{whole.name}-language-model", model.eval(), whole.tokenizer)


def reconnect(language_model: LanguageModel, whole: LanguageModel) -> LanguageModel:
    """A model that sees with another language model inside; its vision encoder and connector are shared.

    Args:
        language_model: what to put in, such as one that was taken out and pruned.
        whole: the model whose other parts to take.

    Raises:
        UnsupportedModel: `whole` sees nothing, or its language model is of another family.
        InvalidRequest: a width, the vocabulary or the number format does not fit.
    """
    family = _seeing(whole)
    own = language_model.decoder.family
    if own.name != family.language_family:
        remedy = "take its language model out first" if own.is_multimodal else "give one"
        raise UnsupportedModel(
            f"{language_model.name} is of family {own.name}, and inside {whole.name} belongs a "
            f"{family.language_family}: {remedy}"
        )
    if language_model.dtype != whole.dtype:
        raise InvalidRequest(
            f"{language_model.name} is in {language_model.dtype} and {whole.name} in {whole.dtype}, and a checkpoint "
            "has one number format: give --dtype for both"
        )
    config = copy.deepcopy(whole.model.config)
    new = language_model.model.config
    for name in MUST_FIT:
        if getattr(new, name) != getattr(config.get_text_config(), name):
            raise InvalidRequest(
                f"{language_model.name} has {name} {getattr(new, name)}, and {whole.name} needs "
                f"{getattr(config.get_text_config(), name)}: give a language model taken from it"
            )
    config.text_config = _inside(new, config)
    config.architectures = None
    inner, body = f"{family.decoder}.", f"{own.decoder}."
    state = {name: t for name, t in whole.model.state_dict().items() if not name.startswith((inner, "lm_head."))}
    for name, tensor in language_model.model.state_dict().items():
        state[f"{inner}{name.removeprefix(body)}" if name.startswith(body) else name] = tensor
    mixed = type(language_model.model).__name__ == own.mixed_class
    model = _build(family, with_flag(config, is_tied(language_model.model)), mixed, state)
    bring_buffers(dict(whole.model.named_buffers()), model)
    model.generation_config = copy.deepcopy(whole.model.generation_config)
    model.name_or_path = whole.model.name_or_path
    return LanguageModel(f"{whole.name}-reconnected", model.eval(), whole.tokenizer, whole.processor)


def plan_inside(plan: PruningPlan, whole: LanguageModel) -> PruningPlan | None:
    """A language model's plan as that of the same cut inside the model that sees; None where it is for another one.

    Args:
        plan: of a language model that was taken out of `whole` and pruned.
        whole: as it was before.
    """
    if plan.base.fingerprint != extract_language_model(whole).fingerprint:
        return None
    return make_plan(
        whole.decoder,
        plan.kept,
        name=whole.name,
        fingerprint=whole.fingerprint,
        method=plan.method,
        ratio=plan.requested_ratio,
        compensation=plan.compensation,
        notes=plan.notes,
        provenance=plan.provenance,
    )


def _seeing(model: LanguageModel) -> ModelFamily:
    family = model.decoder.family
    if not family.is_multimodal:
        known = ", ".join(one.name for one in families.values() if one.is_multimodal)
        raise UnsupportedModel(
            f"{model.name} is a {family.name}, a language model by itself: give one that sees ({known})"
        )
    return family


def _inside(new: PreTrainedConfig, whole: PreTrainedConfig) -> PreTrainedConfig:
    """A language model's config as part of another: what says how it stands by itself is the old one's."""
    old = whole.get_text_config()
    text = copy.deepcopy(new)
    if getattr(text, "auto_map", None) is not None:
        del text.auto_map
    for name in ("architectures", "tie_word_embeddings", "dtype"):
        setattr(text, name, getattr(old, name, None))
    text._name_or_path = getattr(old, "_name_or_path", "")
    return text


def _build(family: ModelFamily, config: Any, mixed: bool, tensors: dict[str, torch.Tensor]) -> PreTrainedModel:
    """The family's model with these weights."""
    from transformers.initialization import no_init_weights

    from prunelab.models import modeling_prunelab

    model_class = getattr(modeling_prunelab, family.mixed_class) if mixed else getattr(transformers, family.stock_class)
    with torch.device("meta"), no_init_weights():
        model: PreTrainedModel = model_class(config)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.tie_weights()
    return model
