"""A model without values: its modules, shapes and names, built from the configuration alone."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.modeling_utils import local_torch_dtype


def empty_model(
    model_class: Any, config: Any, dtype: torch.dtype, device: torch.device | None = None
) -> PreTrainedModel:
    """A model without values.

    Args:
        model_class: of transformers.
        config: its config.
        dtype: number format of the values that it would have.
        device: where its buffers, which no checkpoint holds, are made; without one they have no values either.
    """
    with local_torch_dtype(dtype), torch.device("meta"), no_init_weights():
        model: PreTrainedModel = model_class(config)
    model.config.dtype = dtype
    model.tie_weights()
    if device is not None:
        for module in model.modules():
            buffers = {name: b for name, b in module.named_buffers(recurse=False) if b.is_meta}
            for name, buffer in buffers.items():
                module._buffers[name] = torch.empty_like(buffer, device=device)
            if buffers:
                # As loading does: the class knows what belongs in them. Its weights here have no values to change.
                with torch.no_grad():
                    model._init_weights(module)
    return model
