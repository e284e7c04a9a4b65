"""Models on the meta device: modules, shapes and names without weights, built from the configuration alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunelab.io.lazy import nn, torch, transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(
    model_class: Any, config: Any, dtype: torch.dtype, device: torch.device | None = None
) -> PreTrainedModel:
    """Build a model on the meta device.

    Args:
        model_class: a model class of transformers.
        config: its config.
        dtype: number format of the weights.
        device: device of the buffers that no checkpoint stores; None leaves them on the meta device too.
    """
    from transformers.initialization import no_init_weights
    from transformers.modeling_utils import local_torch_dtype

    with local_torch_dtype(dtype), torch.device("meta"), no_init_weights():
        model: PreTrainedModel = model_class(config)
    model.config.dtype = dtype
    model.tie_weights()
    if device is not None:
        _fill_buffers(model, model, device)
    return model


def _fill_buffers(module: nn.Module, owner: PreTrainedModel, device: torch.device) -> None:
    """Initialise the buffers of a module and of its children.

    As in loading, the class of the innermost model around a module initialises them; the weights that it would
    initialise as well are on the meta device.
    """
    for child in module.children():
        _fill_buffers(child, child if isinstance(child, transformers.PreTrainedModel) else owner, device)
    buffers = {name: b for name, b in module.named_buffers(recurse=False) if b.is_meta}
    for name, buffer in buffers.items():
        module._buffers[name] = torch.empty_like(buffer, device=device)
    if buffers:
        with torch.no_grad():
            owner._init_weights(module)
