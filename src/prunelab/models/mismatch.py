"""Explain in one line why stored tensors do not match the model: the tensor, the reason and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from prunelab.models.names import listed
from prunelab.models.number_format import words

if TYPE_CHECKING:
    from prunelab.models.matching import Match, Renaming
    from prunelab.models.tensor_files import StoredTensor

_QUANTISED = re.compile(
    r"(^|[.:])(qweight|qzeros|g_idx|scales|scale|scale_inv|weight_scale(_inv)?|input_scale|weight_zero_point|"
    r"weight_packed|weight_shape|SCB|weight_format|absmax|nested_absmax|quant_map|quant_state(\.\w+)?|zeros|qdata|"
    r"weight_q|biases)$"
)
_ADAPTER = re.compile(r"(^|\.)(lora_[A-Za-z]\w*|base_layer|modules_to_save|original_module)(\.|$)")
_WRAPPER = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|module)\.")
_BLOCK = re.compile(r"^(.*?\.layers\.)(\d+)\.")
CUTTABLE = "bfloat16, float16 or float32"


@dataclass(frozen=True)
class Mismatch:
    """A checkpoint's tensors compared with its model's, for an explanation of the differences.

    Attributes:
        match: the matching and mismatching tensors.
        stored: the checkpoint's tensors by name.
        renaming: the names that the tensors get on loading, and the model's shapes.
        config: the model's configuration.
    """

    match: Match
    stored: Mapping[str, StoredTensor]
    renaming: Renaming
    config: Any

    def explanation(self) -> str | None:
        """The first reason that applies, with tensor and remedy; None if everything matches."""
        matched = self.match
        if matched.missing or matched.left_over:
            reasons: tuple[Callable[[], str | None], ...] = (
                self._adapter, self._quantised, self._wrapped, self._blocks, self._head, self._biases,
            )  # fmt: skip
            return next((text for reason in reasons if (text := reason()) is not None), None) or self._names()
        if matched.integers:
            return self._quantised()
        if matched.doubled:
            name, first, second = matched.doubled[0]
            return f"{first} and {second} are both stored for {name}: delete one of them, and save the model again"
        return self._shape() if matched.reshaped else None

    def _adapter(self) -> str | None:
        parts = [name for name in self.match.left_over if _ADAPTER.search(name)]
        if not parts:
            return None
        return (
            f"{parts[0]} is stored, which belongs to an adapter that was not merged: merge the adapter, and save the "
            "model again"
        )

    def _quantised(self) -> str | None:
        extra = [name for name in self.match.left_over if _QUANTISED.search(name)]
        integers = self.match.integers
        if not extra and not integers:
            return None
        tensor = extra[0] if extra else f"{integers[0]} as {words(self.stored[self.match.sources[integers[0]]].dtype)}"
        return (
            f"the weights are quantised ({tensor} is stored) although config.json does not declare it, and cannot be "
            f"pruned: give the checkpoint they were quantised from, in {CUTTABLE}"
        )

    def _wrapped(self) -> str | None:
        """Tensor names with the name of a wrapper around the model, as a prefix or between their parts."""
        for name in self.match.left_over:
            bare = _WRAPPER.sub(r"\1", name)
            inside = bare if bare != name else None
            if inside is not None and self.renaming.of(inside) is not None:
                part = _WRAPPER.search(name)
                return self._behind(name, "" if part is None else part.group(0).lstrip("."), inside)
            parts = name.split(".")
            for start in range(1, len(parts)):
                inside = ".".join(parts[start:])
                if self.renaming.of(inside) is not None and self._most_behind(name[: -len(inside)]):
                    return self._behind(name, name[: -len(inside)], inside)
        return None

    def _most_behind(self, prefix: str) -> bool:
        prefixed = [name for name in self.match.left_over if name.startswith(prefix)]
        fitting = [name for name in prefixed if self.renaming.of(name.removeprefix(prefix)) is not None]
        return 2 * len(fitting) > max(len(prefixed), 1) and self.renaming.of(fitting[0].removeprefix(prefix)) in (
            self.match.missing
        )

    def _behind(self, name: str, wrapper: str, inside: str) -> str:
        others = sum(wrapper in other for other in self.match.left_over) - 1
        return (
            f"{name}{f' (and {others} more)' if others > 0 else ''} has the prefix of a wrapper ({wrapper}) around the "
            f"model: save the model inside the wrapper, so that the tensor is called {inside}"
        )

    def _extra(self) -> list[str]:
        """The left-over tensors, by the names that they get on loading."""
        return [self.renaming.target(name) for name in self.match.left_over]

    def _blocks(self) -> str | None:
        """Blocks that config.json declares and the files lack, or the reverse."""
        lacking, extra = _by_list(self.match.missing), _by_list(self._extra())
        every = _by_list([*self.match.sources, *self._extra()])
        for prefix in (*lacking, *extra):
            stored = every.get(prefix, set())
            declared = set(_by_list(list(self.renaming.expected)).get(prefix, set()))
            if not stored or not declared or stored == declared:
                continue
            text = (
                f"{prefix} are stored with numbers {_ranges(stored)}, and config.json declares {len(declared)} blocks"
            )
            gaps = set(range(max(stored, default=0) + 1)) - stored
            if gaps and len(stored) == len(declared):
                return f"{text}: renumber the stored blocks from 0, since {_ranges(gaps)} are missing"
            if gaps:
                return f"{text}: fetch the missing {_ranges(gaps)}, or renumber the stored blocks from 0"
            return f"{text}: set num_hidden_layers to {len(stored)}, or fetch the checkpoint again"
        return None

    def _head(self) -> str | None:
        """A missing head, which may be stored under another name."""
        heads = [name for name in self.match.missing if name.endswith("lm_head.weight")]
        if not heads:
            return None
        shape = tuple(self.renaming.expected[heads[0]].shape)
        alike = [name for name in self.match.left_over if self.stored[name].shape == shape]
        if alike:
            return (
                f"{heads[0]} is not stored, and {alike[0]}, which has the same shape, is not a tensor of the model: if "
                f"it is the head, rename it to {heads[0]}"
            )
        if len(self.match.missing) > 1:
            return None
        return (
            f"{heads[0]} is not stored, and tie_word_embeddings in config.json is false: set it to true if head and "
            "embedding share their weight, or fetch the weights again"
        )

    def _biases(self) -> str | None:
        extra = self.match.left_over
        if self.match.missing or not all(name.endswith("_proj.bias") for name in extra):
            return None
        switches = [name for name in ("attention_bias", "mlp_bias") if hasattr(self.config.get_text_config(), name)]
        architecture = "set the architecture of the weights (such as Qwen2ForCausalLM)"
        remedy = f"set {' or '.join(switches)} to true, or {architecture}" if switches else architecture
        return f"{listed(extra)} {_are(extra)} stored, and config.json declares no such bias: {remedy} in config.json"

    def _names(self) -> str:
        """Any other missing or left-over tensor."""
        missing, extra = self.match.missing, self.match.left_over
        if not extra:
            return f"{listed(missing)}, which the model needs, {_are(missing)} not stored: fetch the weights again"
        if not missing:
            return (
                f"{listed(extra)} {_are(extra)} stored, and not among the tensors of the model that config.json "
                "describes: correct config.json, or save the weights without them"
            )
        return (
            f"{listed(missing)} {_are(missing)} not stored, and {listed(extra)} {_are(extra)} not among the tensors of "
            "the model that config.json describes: correct config.json, or fetch the weights again"
        )

    def _shape(self) -> str:
        name = self.match.reshaped[0]
        source = self.match.sources[name]
        stored, expected = self.stored[source].shape, tuple(self.renaming.expected[name].shape)
        more = f" (and {len(self.match.reshaped) - 1} more)" if len(self.match.reshaped) > 1 else ""
        return (
            f"{source}{more} is stored with shape {_shape_text(stored)}, and config.json implies "
            f"{_shape_text(expected)}: correct {self._field(name, stored, expected)} in config.json, or fetch "
            "the weights again"
        )

    def _field(self, name: str, held: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """The config field with the size in which two shapes differ; `the sizes` if there is none."""
        fields: dict[str, Any] = self.config.get_text_config().to_dict()
        differing = [want for have, want in zip(held, wanted, strict=False) if have != want]
        order: tuple[str, ...] = (
            "vocab_size",
            "intermediate_size",
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
        )
        if any(part in name for part in ("embed_tokens", "lm_head")):
            order = ("vocab_size", "hidden_size")
        named = [field for field in order if differing and fields.get(field) == differing[0]]
        return named[0] if named else "the sizes"


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _by_list(names: list[str]) -> dict[str, set[int]]:
    """The block numbers in tensor names, by the prefix before the number."""
    numbers: dict[str, set[int]] = {}
    for matched in filter(None, map(_BLOCK.match, names)):
        numbers.setdefault(matched[1], set()).add(int(matched[2]))
    return numbers


def _ranges(numbers: set[int]) -> str:
    """Numbers as text: {0, 1, 2, 5} is `0-2, 5`."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"
