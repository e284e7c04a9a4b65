"""One line for tensors that are not those of the model: which, why, and the remedy."""

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
    """A checkpoint whose tensors are not its model's, and why.

    Attributes:
        match: what fits and what does not.
        stored: the checkpoint's tensors by name.
        renaming: the names that they get, and the model's shapes.
        config: the model's configuration.
    """

    match: Match
    stored: Mapping[str, StoredTensor]
    renaming: Renaming
    config: Any

    def explanation(self) -> str | None:
        """The first reason that holds, with tensor and remedy; None where everything fits."""
        found = self.match
        if found.missing or found.left_over:
            reasons: tuple[Callable[[], str | None], ...] = (
                self._adapter, self._quantised, self._wrapped, self._blocks, self._head, self._biases,
            )  # fmt: skip
            return next((text for reason in reasons if (text := reason()) is not None), None) or self._names()
        if found.integers:
            return self._quantised()
        if found.doubled:
            name, one, other = found.doubled[0]
            return f"{one} and {other} are both stored for {name}: remove the one that is not meant, and save anew"
        return self._shape() if found.reshaped else None

    def _adapter(self) -> str | None:
        parts = [name for name in self.match.left_over if _ADAPTER.search(name)]
        if not parts:
            return None
        return (
            f"{parts[0]} is stored, which an adapter that was not merged leaves: merge the adapter first, and save anew"
        )

    def _quantised(self) -> str | None:
        extra = [name for name in self.match.left_over if _QUANTISED.search(name)]
        whole = self.match.integers
        if not extra and not whole:
            return None
        tensor = extra[0] if extra else f"{whole[0]} as {words(self.stored[self.match.sources[whole[0]]].dtype)}"
        return (
            f"the weights are quantised ({tensor} is stored), which config.json does not say, and their rows cannot be "
            f"cut: give the checkpoint they were made from, in {CUTTABLE}"
        )

    def _wrapped(self) -> str | None:
        """Names of a wrapper around the model, in front of its own or between their parts."""
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
        behind = [name for name in self.match.left_over if name.startswith(prefix)]
        fitting = [name for name in behind if self.renaming.of(name.removeprefix(prefix)) is not None]
        return 2 * len(fitting) > max(len(behind), 1) and self.renaming.of(fitting[0].removeprefix(prefix)) in (
            self.match.missing
        )

    def _behind(self, name: str, wrapper: str, inside: str) -> str:
        others = sum(wrapper in other for other in self.match.left_over) - 1
        return (
            f"{name}{f' (and {others} more)' if others > 0 else ''} bears the name of a wrapper ({wrapper}) around "
            f"the model: save the model inside it, so that the tensor is called {inside}"
        )

    def _extra(self) -> list[str]:
        """What is left over, by the names that the model would give it."""
        return [self.renaming.target(name) for name in self.match.left_over]

    def _blocks(self) -> str | None:
        """Blocks that config.json counts and the files lack, or the other way round."""
        lacking, extra = _by_list(self.match.missing), _by_list(self._extra())
        every = _by_list([*self.match.sources, *self._extra()])
        for prefix in (*lacking, *extra):
            held = every.get(prefix, set())
            counted = set(_by_list(list(self.renaming.expected)).get(prefix, set()))
            if not held or not counted or held == counted:
                continue
            text = f"{prefix} are stored with numbers {_ranges(held)}, and config.json counts {len(counted)} blocks"
            gaps = set(range(max(held, default=0) + 1)) - held
            if gaps and len(held) == len(counted):
                return f"{text}: number them anew from 0, since {_ranges(gaps)} are left out"
            if gaps:
                return f"{text}: {_ranges(gaps)} are not stored; fetch them, or number the others anew from 0"
            return f"{text}: set num_hidden_layers to {len(held)}, or fetch the checkpoint again"
        return None

    def _head(self) -> str | None:
        """A head that is missing, and perhaps stored under another name."""
        heads = [name for name in self.match.missing if name.endswith("lm_head.weight")]
        if not heads:
            return None
        shape = tuple(self.renaming.expected[heads[0]].shape)
        alike = [name for name in self.match.left_over if self.stored[name].shape == shape]
        if alike:
            return (
                f"{heads[0]} is not stored, and {alike[0]}, which has its shape, is no tensor of the model: if it is "
                f"the head, store it as {heads[0]}"
            )
        if len(self.match.missing) > 1:
            return None
        return (
            f"{heads[0]} is not stored, and tie_word_embeddings in config.json is false: set it to true if the head "
            "is the embeddings, or fetch the weights again"
        )

    def _biases(self) -> str | None:
        extra = self.match.left_over
        if self.match.missing or not all(name.endswith("_proj.bias") for name in extra):
            return None
        switches = [name for name in ("attention_bias", "mlp_bias") if hasattr(self.config.get_text_config(), name)]
        remedy = f"set {' or '.join(switches)} to true" if switches else "name the architecture that has them"
        return (
            f"{listed(extra)} {_are(extra)} stored, and config.json announces no such bias: {remedy} where every such "
            "projection has one, or give the architecture (such as Qwen2ForCausalLM) that the weights are of"
        )

    def _names(self) -> str:
        """Whatever else is missing or left over."""
        missing, extra = self.match.missing, self.match.left_over
        if not extra:
            return f"{listed(missing)}, which the model needs, {_are(missing)} not stored: fetch the weights again"
        if not missing:
            return (
                f"{listed(extra)} {_are(extra)} stored, and not among the tensors of the model that config.json "
                "describes: correct config.json, or save the weights without"
            )
        return (
            f"{listed(missing)} {_are(missing)} not stored, and {listed(extra)} {_are(extra)} not among the tensors of "
            "the model that config.json describes: correct config.json, or fetch the weights again"
        )

    def _shape(self) -> str:
        name = self.match.reshaped[0]
        source = self.match.sources[name]
        held, wanted = self.stored[source].shape, tuple(self.renaming.expected[name].shape)
        more = f" (and {len(self.match.reshaped) - 1} more)" if len(self.match.reshaped) > 1 else ""
        return (
            f"{source}{more} is stored with shape {_shape_text(held)}, and config.json asks for {_shape_text(wanted)}: "
            f"correct {self._field(name, held, wanted)} in config.json, or fetch the weights again"
        )

    def _field(self, name: str, held: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """The field of the configuration that gives the size in which two shapes differ, where one is that size."""
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
    """The numbers of the blocks that names belong to, by what stands in front of the number."""
    numbers: dict[str, set[int]] = {}
    for found in filter(None, map(_BLOCK.match, names)):
        numbers.setdefault(found[1], set()).add(int(found[2]))
    return numbers


def _ranges(numbers: set[int]) -> str:
    """Numbers as text: {0, 1, 2, 5} is `0-2, 5`."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"
