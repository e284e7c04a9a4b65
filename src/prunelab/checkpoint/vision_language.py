"""Extract the language model of a vision-language model, and reconnect a language model, pruned or not."""

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
"""Config fields of the language model that the vision encoder and connector depend on."""


def extract_language_model(whole: LanguageModel) -> LanguageModel:
    """The language model inside a vision-language model; it shares its weights.

    Raises:
        UnsupportedModel: the model is not a vision-language model.
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
    model.name_or_path = whole.model.name_or_path  # for the licence
    return LanguageModel(f"{whole.name}-language-model", model.eval(), whole.tokenizer)


def reconnect(language_model: LanguageModel, whole: LanguageModel) -> LanguageModel:
    """Replace the language model of a vision-language model; its vision encoder and connector are shared.

    Args:
        language_model: the new language model, such as one that was extracted and pruned.
        whole: the vision-language model that provides the other parts.

    Raises:
        UnsupportedModel: `whole` is not a vision-language model, or its language model is of another family.
        InvalidRequest: the hidden size, the vocabulary size or the number format differs.
    """
    family = _seeing(whole)
    language_family = language_model.decoder.family
    if language_family.name != family.language_family:
        extract = " (see `prunelab extract-language-model`)" if language_family.is_multimodal else ""
        raise UnsupportedModel(
            f"{language_model.name} is of family {language_family.name}, and {whole.name} needs a language model of "
            f"family {family.language_family}: give one{extract}"
        )
    if language_model.dtype != whole.dtype:
        raise InvalidRequest(
            f"{language_model.name} is in {language_model.dtype} and {whole.name} in {whole.dtype}, and a checkpoint "
            "has a single number format: give --dtype"
        )
    config = copy.deepcopy(whole.model.config)
    new = language_model.model.config
    for name in MUST_FIT:
        if getattr(new, name) != getattr(config.get_text_config(), name):
            raise InvalidRequest(
                f"{language_model.name} has {name} {getattr(new, name)}, and {whole.name} needs "
                f"{getattr(config.get_text_config(), name)}: give a language model that was extracted from it"
            )
    config.text_config = _inside(new, config)
    config.architectures = None
    inner, body = f"{family.decoder}.", f"{language_family.decoder}."
    state = {name: t for name, t in whole.model.state_dict().items() if not name.startswith((inner, "lm_head."))}
    for name, tensor in language_model.model.state_dict().items():
        state[f"{inner}{name.removeprefix(body)}" if name.startswith(body) else name] = tensor
    mixed = type(language_model.model).__name__ == language_family.mixed_class
    model = _build(family, with_flag(config, is_tied(language_model.model)), mixed, state)
    bring_buffers(dict(whole.model.named_buffers()), model)
    model.generation_config = copy.deepcopy(whole.model.generation_config)
    model.name_or_path = whole.model.name_or_path
    return LanguageModel(f"{whole.name}-reconnected", model.eval(), whole.tokenizer, whole.processor)


def plan_inside(plan: PruningPlan, whole: LanguageModel) -> PruningPlan | None:
    """Translate an extracted language model's plan into a plan of the vision-language model.

    Args:
        plan: the plan of a language model that was extracted from `whole` and pruned.
        whole: the dense vision-language model.

    Returns:
        The plan of the same cut inside `whole`; None if `plan` belongs to another model.
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
        known = ", ".join(candidate.name for candidate in families.values() if candidate.is_multimodal)
        raise UnsupportedModel(
            f"{model.name} is of family {family.name}, a language model: give a vision-language model ({known})"
        )
    return family


def _inside(new: PreTrainedConfig, whole: PreTrainedConfig) -> PreTrainedConfig:
    """A language model's config as the text config of `whole`; fields of a standalone model come from the old one."""
    old = whole.get_text_config()
    text = copy.deepcopy(new)
    if getattr(text, "auto_map", None) is not None:
        del text.auto_map
    for name in ("architectures", "tie_word_embeddings", "dtype"):
        setattr(text, name, getattr(old, name, None))
    text._name_or_path = getattr(old, "_name_or_path", "")
    return text


def _build(family: ModelFamily, config: Any, mixed: bool, tensors: dict[str, torch.Tensor]) -> PreTrainedModel:
    """Build the family's model with these weights."""
    from transformers.initialization import no_init_weights

    from prunelab.models import modeling_prunelab

    model_class = getattr(modeling_prunelab, family.mixed_class) if mixed else getattr(transformers, family.stock_class)
    with torch.device("meta"), no_init_weights():
        model: PreTrainedModel = model_class(config)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.tie_weights()
    return model
