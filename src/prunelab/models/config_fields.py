"""The fields of config.json: fields that are dropped, and the allowed values of the others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from prunelab.io.lazy import torch

Fields = dict[str, Any]

OUTPUT_SWITCHES = (
    "return_dict", "use_return_dict", "output_attentions", "_output_attentions", "output_hidden_states", "use_cache",
    "torchscript", "tie_last_hidden_states",
)  # fmt: skip
"""Switches for outputs besides logits: dropped from a checkpoint's config, so that the defaults hold."""

CLASSIFICATION = ("num_labels", "id2label", "label2id", "problem_type")
"""Fields of classifiers: a language model does not use them, and a huge `num_labels` exhausts the memory."""

UNDECLARED = ("sliding_window", "layer_types", "attention_chunk_size", "final_logit_softcapping")
"""Fields that caches, masks and losses read from any config: dropped if the architecture does not declare them."""

ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
EXPERTS = ("experts_implementation", "_experts_implementation", "_experts_implementation_internal")
NUMBER_FORMATS = ("float32", "bfloat16", "float16", "float64")
SHORT_FORMATS = {
    "bf16": "bfloat16", "fp16": "float16", "half": "float16", "f16": "float16", "fp32": "float32", "f32": "float32",
    "float": "float32", "fp64": "float64", "double": "float64",
}  # fmt: skip

AT_LEAST_ONE = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "image_size", "patch_size", "num_channels", "query_pre_attn_scalar", "scale_factor",
    "sliding_window",
)  # fmt: skip
NOT_NEGATIVE = (
    "intermediate_size",
    "rms_norm_eps",
    "layer_norm_eps",
    "max_window_layers",
    "projection_dim",
    "initializer_range",
)
ABOVE_ZERO = ("rope_theta", "attn_logit_softcapping", "final_logit_softcapping", "partial_rotary_factor")
LARGEST = {"num_hidden_layers": 2_000, "num_attention_heads": 1 << 16, "num_key_value_heads": 1 << 16}
"""Far above every real model: a larger number is a mistake, and the model would take hours to build."""
LARGEST_SIZE = 1 << 31

ROPE_LENGTHS = ("original_max_position_embeddings",)
ROPE_POSITIVE = (
    "factor", "rope_theta", "attention_factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow",
    "partial_rotary_factor",
)  # fmt: skip
ROPE_OPTIONAL = ("attention_factor", "beta_fast", "beta_slow", "factor")
ROPE_LISTS = ("short_factor", "long_factor")
LONGEST = 1 << 63
"""The bound of integers in a config: torch's are smaller."""


def parts(fields: Fields, path: str = "") -> Iterator[tuple[str, Fields]]:
    """The configurations in a config.json, each with its dotted path: the config itself and its nested configs."""
    yield path, fields
    for name, value in fields.items():
        if name.endswith("_config") and isinstance(value, dict):
            yield from parts(value, f"{path}{name}.")


def without_switches(fields: Fields) -> None:
    """Remove output switches and fields of classifiers, in nested configs as well, so that the defaults hold."""
    for _, part in list(parts(fields)):
        for name in (*OUTPUT_SWITCHES, *CLASSIFICATION):
            part.pop(name, None)


def without_attention(fields: Fields) -> list[str]:
    """Remove attention implementations other than eager and sdpa, in nested configs as well.

    Only these two accept the masks that prunelab scores with, and they run on every machine.

    Returns:
        The names of the removed implementations.
    """
    removed: list[str] = []
    for _, part in list(parts(fields)):
        for name in EXPERTS:
            part.pop(name, None)
        for name in ATTENTION:
            value = part.get(name)
            if value is not None and value not in ("eager", "sdpa"):
                removed.append(str(value))
            if value not in ("eager", "sdpa"):
                part.pop(name, None)
    return list(dict.fromkeys(removed))


def problem_in(fields: Fields) -> str | None:
    """The first invalid value of a config.json, as a text with field, value and remedy; None if all are valid."""
    for path, part in parts(fields):
        problem = (
            _format(path, part) or _kinds(path, part) or _numbers(path, part) or _heads(path, part) or _rope(path, part)
        )
        problem = problem or _blocks(path, part)
        if problem:
            return problem
    return None


def _format(path: str, part: Fields) -> str | None:
    for name in ("dtype", "torch_dtype"):
        value = part.get(name)
        if value is None or (isinstance(value, str) and value in NUMBER_FORMATS):
            continue
        known = str(value).removeprefix("torch.").lower()
        known = SHORT_FORMATS.get(known, known)
        remedy = f"write {known!r}" if known in NUMBER_FORMATS else f"write one of {', '.join(NUMBER_FORMATS)}"
        return f"{path}{name} is {shown(value)}, which is not a number format of weights: {remedy}"
    return None


def _kinds(path: str, part: Fields) -> str | None:
    """Fields that are read before transformers validates them, and integers that are too large for torch."""
    names = part.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        return f'{path}architectures is {shown(names)}: write a list of class names, such as ["LlamaForCausalLM"]'
    quantised = part.get("quantization_config")
    if quantised is not None and not isinstance(quantised, dict):
        return f"{path}quantization_config is {shown(quantised)}: leave it out"
    huge = next((name for name, value in part.items() if any(map(_is_huge, numbers_in(value)))), None)
    if huge is not None:
        return f"{path}{huge} holds an integer too large for 64 bits: write a smaller number"
    pad, vocabulary = part.get("pad_token_id"), part.get("vocab_size")
    if is_number(pad) and is_count(vocabulary) and not -vocabulary <= pad < vocabulary:
        return f"{path}pad_token_id is {shown(pad)}: write an id below {path}vocab_size, {vocabulary}, or null"
    return None


def _is_huge(number: float) -> bool:
    return isinstance(number, int) and abs(number) >= LONGEST


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers in a JSON value at any depth."""
    if is_number(value):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(inner)


def _numbers(path: str, part: Mapping[str, Any]) -> str | None:
    for name, value in part.items():
        if not is_number(value):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            return f"{path}{name} is {value}: write a finite number"
        if name in AT_LEAST_ONE and value < 1:
            return f"{path}{name} is {shown(value)}: write 1 or more"
        if name in NOT_NEGATIVE and value < 0:
            return f"{path}{name} is {shown(value)}: write 0 or more"
        if name in ABOVE_ZERO and value <= 0:
            return f"{path}{name} is {shown(value)}: write a number above 0"
        largest = LARGEST.get(name, LARGEST_SIZE)
        if name in (*AT_LEAST_ONE, *NOT_NEGATIVE) and value > largest:
            return f"{path}{name} is {shown(value)}: write {largest:,} or less"
    return None


def _heads(path: str, part: Fields) -> str | None:
    heads, groups, head = (part.get(name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    if is_count(heads) and is_count(groups) and heads % groups:
        return (
            f"{path}num_attention_heads is {heads}, which is not a multiple of {path}num_key_value_heads, {groups}: "
            "correct one of them"
        )
    hidden = part.get("hidden_size")
    if head is None and is_count(hidden) and is_count(heads) and hidden % heads:
        return (
            f"{path}hidden_size is {hidden}, which is not a multiple of {path}num_attention_heads, {heads}: correct "
            "one of them"
        )
    if is_count(head) and head % 2:
        return f"{path}head_dim is {head}, and rotary embeddings need an even number: write an even number"
    return None


def _rope_types() -> set[str]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return {"default", *ROPE_INIT_FUNCTIONS}


def _rope(path: str, part: Fields) -> str | None:
    """Rotary parameters: positive numbers, and lists of half the head dimension."""
    for name in ("rope_parameters", "rope_scaling"):
        value = part.get(name)
        if value is None:
            continue
        if not isinstance(value, dict):
            return (
                f'{path}{name} is {shown(value)}: write an object such as {{"rope_type": "default"}}, or leave it out'
            )
        where = f"{path}{name}."
        kind = value.get("rope_type", value.get("type", "default"))
        if not isinstance(kind, str) or kind not in _rope_types():
            return f"{where}rope_type is {shown(kind)}: write one of {', '.join(sorted(_rope_types()))}"
        for key in ROPE_POSITIVE:
            number = value.get(key)
            optional = number is None and (key not in value or key in ROPE_OPTIONAL)
            if not optional and not (is_number(number) and math.isfinite(number) and number > 0):
                return f"{where}{key} is {shown(number)}: write a number above 0"
        for key in ROPE_LENGTHS:
            number = value.get(key)
            if number is not None and not is_count(number):
                return f"{where}{key} is {shown(number)}: write an integer above 0"
        if kind == "longrope" and (problem := _factors(where, value, part)):
            return problem
    return None


def _factors(where: str, rope: Fields, part: Fields) -> str | None:
    hidden, heads, head = (part.get(name) for name in ("hidden_size", "num_attention_heads", "head_dim"))
    if not is_count(head) and is_count(hidden) and is_count(heads):
        head = hidden // heads
    for key in ROPE_LISTS:
        numbers = rope.get(key)
        if not isinstance(numbers, list) or not all(is_number(n) and math.isfinite(n) and n > 0 for n in numbers):
            return f"{where}{key} is {shown(numbers)}: write a list of numbers above 0"
        share = rope.get("partial_rotary_factor", part.get("partial_rotary_factor", 1.0))
        wanted = int(head * share) // 2 if is_count(head) and is_number(share) else len(numbers)
        if len(numbers) != wanted:
            return f"{where}{key} has {len(numbers)} numbers: write {wanted}, one for every two channels of a head"
    return None


def _blocks(path: str, part: Fields) -> str | None:
    """Fields with one entry a block: an entry for every block, and for no other."""
    blocks, types = part.get("num_hidden_layers"), part.get("layer_types")
    if isinstance(types, list) and is_count(blocks) and len(types) != blocks:
        return (
            f"{path}layer_types has {len(types)} entries, and {path}num_hidden_layers is {blocks}: write one entry for "
            "each block, or correct num_hidden_layers"
        )
    per_layer = part.get("per_layer_config")
    if per_layer is None:
        return None
    if not isinstance(per_layer, dict):
        return f"{path}per_layer_config is {shown(per_layer)}: write an object with block numbers as keys"
    most = blocks if is_count(blocks) else LARGEST["num_hidden_layers"]
    problems = (_block(f"{path}per_layer_config", key, fields, most) for key, fields in per_layer.items())
    return next(filter(None, problems), None)


def _block(path: str, key: str, fields: Any, blocks: int) -> str | None:
    if not re.fullmatch("[0-9]{1,6}", key) or int(key) >= blocks:
        return f"{path} has the key {key[:40]!r}: write block numbers from 0 to {blocks - 1}"
    if not isinstance(fields, dict):
        return f"{path}.{key} is {shown(fields)}: write an object of fields"
    wrong = [name for name, value in fields.items() if is_number(value) and not 0 <= value <= LARGEST_SIZE]
    return f"{path}.{key}.{wrong[0]} is {shown(fields[wrong[0]])}: write 0 or more" if wrong else None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def shown(value: Any) -> str:
    """A JSON value as messages show it: on one line, at most 60 characters."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
