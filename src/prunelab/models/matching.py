"""Match stored tensors with the model's tensors, by the names that transformers gives them on loading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.models.names import is_harmless

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from prunelab.models.tensor_files import StoredTensor


@dataclass(frozen=True)
class Match:
    """The correspondence between stored tensors and the model's tensors.

    Attributes:
        sources: stored names by the model's names.
        missing: the model's names without a stored tensor, except tied ones.
        left_over: stored names that the model does not have.
        harmless: stored names that the model does not have and that have no effect.
        doubled: for each of the model's names with two stored tensors, the name and both stored names.
        reshaped: the model's names whose stored tensor has another shape.
        integers: the model's names whose stored tensor holds no floating-point numbers.
        tied: the model's names, each with the name that the configuration ties it to.
    """

    sources: Mapping[str, str]
    missing: list[str]
    left_over: list[str]
    harmless: list[str]
    doubled: list[tuple[str, str, str]]
    reshaped: list[str]
    integers: list[str]
    tied: Mapping[str, str]


class Renaming:
    """The names that transformers gives stored tensors on loading.

    Args:
        model: the model on the meta device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        self.renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
        self.converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        self.prefix = model.base_model_prefix
        self.expected: dict[str, torch.Tensor] = model.state_dict()

    def target(self, name: str) -> str:
        """The name that a stored tensor gets on loading, whether or not the model has such a tensor."""
        from transformers.core_model_loading import rename_source_key

        renamed: str
        renamed, _ = rename_source_key(name, self.renamings, self.converters, self.prefix, self.expected)
        if renamed not in self.expected and name in self.expected:
            renamed, _ = rename_source_key(name, [], [], self.prefix, self.expected)
        return renamed

    def of(self, name: str) -> str | None:
        """The model's name of a stored tensor; None if the model has no such tensor."""
        target = self.target(name)
        return target if target in self.expected else None


def match(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> Match:
    """Match a checkpoint's tensors with the model's by name, shape and kind of number.

    Args:
        model: the model on the meta device.
        stored: the checkpoint's tensors by name.
    """
    renaming = Renaming(model)
    sources: dict[str, str] = {}
    doubled, unknown = [], []
    for name in stored:
        target = renaming.of(name)
        if target is None:
            unknown.append(name)
        elif target in sources:
            doubled.append((target, sources[target], name))
        else:
            sources[target] = name
    tied = dict(model.all_tied_weights_keys)
    tied_sources = {name for pair in tied.items() if not sources.keys().isdisjoint(pair) for name in pair}
    ignored = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ["(?!)"]))
    harmless = [name for name in unknown if is_harmless(name) or ignored.search(name)]
    fitting = {name: stored[source] for name, source in sources.items()}
    return Match(
        sources=sources,
        missing=[name for name in renaming.expected if name not in sources and name not in tied_sources],
        left_over=[name for name in unknown if name not in harmless],
        harmless=harmless,
        doubled=doubled,
        reshaped=[name for name, tensor in fitting.items() if tensor.shape != tuple(renaming.expected[name].shape)],
        integers=[
            name
            for name, tensor in fitting.items()
            if renaming.expected[name].is_floating_point() and not tensor.dtype.is_floating_point
        ],
        tied=tied,
    )
