"""Read and validate every config.json: within limits, corrected where that loses nothing, refused otherwise.

transformers validates a config as well, with errors of many lines, or fails while it builds the model. This module
turns every such error into one line with the field, the value and the remedy, before any weight is read.
"""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import CheckpointError, UnsupportedModel, first_line
from prunelab.io.lazy import torch, transformers
from prunelab.io.structured import read_json_object
from prunelab.models.config_fields import (
    UNDECLARED,
    Fields,
    parts,
    problem_in,
    shown,
    without_attention,
    without_switches,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _library_errors() -> tuple[type[Exception], ...]:
    """The errors that transformers and torch raise for a config that describes no valid model."""
    from huggingface_hub.errors import StrictDataclassError

    return (
        StrictDataclassError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError,
        RuntimeError, ImportError, MemoryError,
    )  # fmt: skip


def read_config(name: str) -> PreTrainedConfig:
    """Read and validate the config of a checkpoint in a folder or on the hub.

    Output switches (`return_dict`, `output_attentions`, `use_cache`, ...) are dropped. An attention implementation
    other than eager and sdpa is dropped with a warning.

    Args:
        name: a folder or an id on the hub.

    Raises:
        CheckpointError: config.json is not a JSON object, or has an invalid value; names the field.
        UnsupportedModel: transformers does not know the model type.
        OSError: the hub does not provide the file.
    """
    from transformers.utils.hub import cached_file

    path = Path(name) / "config.json"
    if not path.is_file():
        path = Path(cached_file(name, "config.json"))
    fields = read_json_object(path, error=CheckpointError, remedy="fetch the checkpoint again, or fix the file")
    return config_of(fields, name)


def config_of(fields: Fields, name: str) -> PreTrainedConfig:
    """Build and validate the config from the fields of a config.json.

    Args:
        fields: the fields; they are copied.
        name: the checkpoint's name in error messages.

    Raises:
        CheckpointError: a value is invalid; names the field and the remedy.
        UnsupportedModel: transformers does not know the model type.
    """
    fields = copy.deepcopy(fields)
    without_switches(fields)
    if removed := without_attention(fields):
        warnings.warn(
            f"{name} requests the attention implementation {', '.join(removed)}: using the default (eager or sdpa), "
            "which computes the same",
            UserWarning,
            stacklevel=2,
        )
    config_class = _class_of(fields, name)
    _refuse_methods(fields, config_class, name)
    _leave_out_undeclared(fields, config_class)
    if problem := problem_in(fields):
        raise CheckpointError(f"{name}: config.json's {problem}")
    try:
        config: PreTrainedConfig = config_class.from_dict(copy.deepcopy(fields), name_or_path=name)
        config.to_dict()
        text = config.get_text_config()
    except _library_errors() as error:
        raise _refusal(name, fields, error) from error
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()) and getattr(text, "sliding_window", 0) is None:
        raise CheckpointError(
            f"{name}: config.json's layer_types has sliding_attention, and sliding_window is missing: write its "
            "length, or full_attention for every block"
        )
    return config


def check_buildable(name: str, model_class: Any, config: PreTrainedConfig) -> None:
    """Build the model on the meta device, so that an invalid config is reported before weights are read.

    Args:
        name: the checkpoint's name in error messages.
        model_class: a model class of transformers.
        config: the config; it is copied.

    Raises:
        CheckpointError: the class cannot be built from the config.
    """
    from transformers.initialization import no_init_weights

    try:
        with torch.device("meta"), no_init_weights():
            model_class(copy.deepcopy(config))
    except _library_errors() as error:
        raise _refusal(name, config.to_dict(), error) from error


def check_generation_config(name: str) -> None:
    """Refuse a folder's generation_config.json that transformers cannot read; the file may be missing.

    Raises:
        CheckpointError: it is not a JSON object, or has an invalid value.
    """
    path = Path(name) / "generation_config.json"
    if not path.is_file():
        return
    remedy = "fix the file, or delete it"
    fields = read_json_object(path, error=CheckpointError, nonfinite=True, remedy=remedy)
    ends = fields.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    wrong = [end for end in listed if end is not None and (isinstance(end, bool) or not isinstance(end, int))]
    if wrong:
        raise CheckpointError(f"{path}: eos_token_id holds {shown(wrong[0])}: write a token id, a list of ids, or null")
    try:
        transformers.GenerationConfig.from_dict(fields)
    except _library_errors() as error:
        raise CheckpointError(f"{path} cannot be read ({first_line(error)[:300]}): {remedy}") from error


def _class_of(fields: Fields, name: str) -> Any:
    """The config class of a `model_type`."""
    kind = fields.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointError(
            f"{name}: config.json's model_type is {shown(kind)}: write the architecture's name, such as \"llama\""
        )
    if kind not in transformers.CONFIG_MAPPING:
        raise UnsupportedModel(
            f"{name}: config.json's model_type is {shown(kind)}, which transformers does not know: give a model of a "
            "supported architecture (see `prunelab list families`)"
        )
    # As AutoConfig does: a Mistral with layer_types alternates windows.
    if kind == "mistral" and "layer_types" in fields:
        fields["model_type"] = kind = "ministral"
    return transformers.CONFIG_MAPPING[kind]


def _refuse_methods(fields: Fields, config_class: Any, name: str) -> None:
    """Refuse keys that would take the place of a method of the config, and a part of a type that is no name."""
    for path, part in parts(fields):
        kind = part.get("model_type")
        if kind is not None and not isinstance(kind, str):
            raise CheckpointError(f"{name}: config.json's {path}model_type is {shown(kind)}: write its name as text")
        for key in part:
            if callable(getattr(config_class, key, None)) or key.startswith("__"):
                raise CheckpointError(f"{name}: config.json's {path}{key} is not a config field: leave it out")


def _leave_out_undeclared(fields: Fields, config_class: Any) -> None:
    """Remove architectural fields that the architecture does not declare; converters leave such fields in configs."""
    for path, part in parts(fields):
        kind = part.get("model_type")
        part_class = (
            config_class if not path else transformers.CONFIG_MAPPING.get(kind, None) if isinstance(kind, str) else None
        )
        for key in UNDECLARED:
            if part_class is not None and key in part and not hasattr(part_class, key):
                del part[key]


def _refusal(name: str, fields: Fields, error: BaseException) -> CheckpointError:
    """Turn a library error into one line: the field, its value and the remedy, as far as the error names them."""
    from huggingface_hub.errors import StrictDataclassError

    text = str(error)
    named = re.search(r"Validation error for field '(\w+)'", text)
    if named is not None:
        path, value = _place(fields, named.group(1), text)
        return CheckpointError(f"{name}: config.json's {path} is {shown(value)}: {_remedy(text, value)}")
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ is not None else error
    reason = first_line(cause).strip("'\" ")
    reason = reason if str(cause).strip() else type(cause).__name__
    if isinstance(cause, KeyError) and "rope" not in reason:
        reason = f"{reason!r} is unknown"
    reason = reason if len(reason) <= 300 else f"{reason[:297]}..."
    field = _mentioned(fields, text) if isinstance(cause, KeyError | AttributeError) else None
    field = field or ("hidden_size" if "hidden size" in reason else None)
    where = f"config.json's {field}" if field else "config.json"
    return CheckpointError(
        f"{name}: no model can be built from {where} ({reason}): correct the field, or fetch config.json again"
    )


def _place(fields: Fields, field: str, text: str) -> tuple[str, Any]:
    """The dotted path and the value of a field; among several nested configs, the one whose value the error shows."""
    candidates = [(f"{path}{field}", part[field]) for path, part in parts(fields) if field in part]
    fitting = [(path, value) for path, value in candidates if repr(value) in text]
    return (fitting or candidates or [(field, None)])[0]


def _mentioned(fields: Fields, text: str) -> str | None:
    """The path of the field whose value an error names, such as an unknown activation function."""
    for path, part in parts(fields):
        for field, value in part.items():
            if isinstance(value, str) and value and text.strip("'\"") == value:
                return f"{path}{field}"
    return None


def _remedy(text: str, value: Any) -> str:
    """The remedy for a value of the wrong type."""
    wanted = set(re.findall(r"expected (?:a )?(\w+)", text)) | set(re.findall(r"<class '(\w+)'>", text))
    if "float" in wanted and isinstance(value, int) and not isinstance(value, bool):
        return f"write {float(value)}" if abs(value) < 1 << 53 else "write a number"
    if "int" in wanted and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if wanted & {"int", "float"} and isinstance(value, str) and re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", value):
        return f"write {value} without quotes"
    words = {
        "int": "an integer", "float": "a number with a decimal point", "str": "a string", "bool": "true or false",
        "list": "a list", "dict": "an object", "None": "null", "NoneType": "null",
    }  # fmt: skip
    possible = [words[kind] for kind in words if kind in wanted]
    if not possible:
        return "correct it, or leave it out"
    return f"write {' or '.join(dict.fromkeys(possible))}" + (", or leave it out" if value is None else "")
