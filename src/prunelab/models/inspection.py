"""Inspect a model's folder before anything is computed; shared by models in memory, streamed and offloaded models.

Reads config.json and the headers of the weight files. It reads no weights, except embedding and head if both are stored
although config.json ties them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import CheckpointError, UnsupportedModel, first_line
from prunelab.models.empty import empty_model
from prunelab.models.matching import Match, Renaming, match
from prunelab.models.mismatch import Mismatch
from prunelab.models.names import listed
from prunelab.models.number_format import number_format_of, words
from prunelab.models.rotary import contradicted_theta
from prunelab.models.tensor_files import TensorFiles
from prunelab.models.tying import have_same_values, with_flag
from prunelab.models.weight_files import find_weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from prunelab.models.families import ModelFamily

# The errors that the libraries raise for a configuration that describes no model.
_NO_MODEL = (
    ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError, ImportError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """The contents of a model's folder, as every loader interprets them.

    Attributes:
        name: the model's name in tables.
        path: its folder or its id on the hub, as given.
        folder: the folder of its files.
        family: its family.
        model_class: the class that builds it.
        config: its configuration, with the tying flag and the number format corrected to match the weights.
        files: its tensors by the model's names; at least one of each tied pair.
        number_format: the default number format.
        is_tied: whether head and embedding share their weight.
        ignored_tensors: stored tensors that have no effect.
        ignored_files: other files with weights, which no loader opens.
        corrections: contradictions between config.json and the weights, one sentence each.
    """

    name: str
    path: str
    folder: Path
    family: ModelFamily
    model_class: Any
    config: PreTrainedConfig
    files: TensorFiles
    number_format: torch.dtype
    is_tied: bool
    ignored_tensors: tuple[str, ...]
    ignored_files: tuple[str, ...]
    corrections: tuple[str, ...]

    def empty(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> PreTrainedModel:
        """The model on the meta device; see `empty_model`."""
        return empty_model(self.model_class, copy.deepcopy(self.config), dtype or self.number_format, device)

    @cached_property
    def parameters(self) -> int:
        """All parameters of the model, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.empty().parameters())

    @property
    def stored_formats(self) -> tuple[str, ...]:
        """Names of the number formats of the stored tensors."""
        return tuple(sorted({words(tensor.dtype) for tensor in self.files.tensors.values()}))

    def weight_bytes(self, dtype: torch.dtype | None = None) -> int:
        """Size of the weights in bytes, in a number format or in the default one."""
        return self.parameters * (dtype or self.number_format).itemsize

    def record(self) -> dict[str, Any]:
        """The record that plans and model cards keep."""
        return {
            "files": sorted({tensor.file.name for tensor in self.files.tensors.values()}),
            "tensors": len(self.files.tensors),
            "stored_formats": list(self.stored_formats),
            "number_format": words(self.number_format),
            "head": "tied" if self.is_tied else "stored",
            "ignored_tensors": len(self.ignored_tensors),
            "ignored_files": list(self.ignored_files),
            "corrections": list(self.corrections),
        }


def inspect_folder(
    folder: Path, config: PreTrainedConfig, family: ModelFamily, model_class: Any, *, name: str, path: str
) -> Inspection:
    """Compare the tensors in a folder with the model that its configuration describes.

    Args:
        folder: the folder of the files.
        config: its configuration.
        family: the model's family.
        model_class: the class that builds the model.
        name: the model's name in tables.
        path: the folder or the id on the hub, as given.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape or quantised; files are missing, damaged or
            ambiguous, or belong to an adapter; config.json describes no model.
        UnsupportedModel: config.json declares the weights as quantised.
    """
    _refuse_quantised(config, path)
    files = TensorFiles.open(folder)
    _check_count(config, files, path)
    chosen, is_named = number_format_of(config, (tensor.dtype for tensor in files.tensors.values()), path)
    try:
        model = empty_model(model_class, copy.deepcopy(config), chosen)
    except _NO_MODEL as error:
        raise CheckpointError(
            f"{path}: transformers cannot build a model from config.json ({first_line(error)}): correct config.json, "
            "or fetch it again"
        ) from error
    matched = match(model, files.tensors)
    if (reason := Mismatch(matched, files.tensors, Renaming(model), config).explanation()) is not None:
        raise CheckpointError(f"{path}: {reason}")
    by_name = TensorFiles(folder, {name: files.tensors[source] for name, source in matched.sources.items()})
    tied, corrections = _tying(matched, by_name)
    settled = copy.deepcopy(with_flag(config, tied) if matched.tied else config)
    settled.dtype = chosen
    if not is_named:
        corrections += (f"config.json has no dtype: using {words(chosen)}, the number format of the weights",)
    if (contradiction := contradicted_theta(config, files.tensors)) is not None:
        corrections += (contradiction,)
    return Inspection(
        name=name,
        path=path,
        folder=folder,
        family=family,
        model_class=model_class,
        config=settled,
        files=by_name,
        number_format=chosen,
        is_tied=tied,
        ignored_tensors=tuple(matched.harmless),
        ignored_files=find_weight_files(folder).ignored,
        corrections=corrections,
    )


def _refuse_quantised(config: PreTrainedConfig, path: str) -> None:
    parts = (config, config.get_text_config())
    if any(getattr(part, name, None) is not None for part in parts for name in ("quantization_config",)):
        raise UnsupportedModel(f"{path} is quantised, and cannot be pruned: give the checkpoint it was quantised from")
    other = getattr(config, "transformers_weights", None)
    if other is not None:
        raise CheckpointError(
            f"{path}: transformers_weights in config.json names {other!s:.80}, and prunelab reads model.safetensors "
            "and its shards only: rename the file to model.safetensors and delete the field"
        )


def _check_count(config: PreTrainedConfig, files: TensorFiles, path: str) -> None:
    """Refuse a config with more blocks than the files have tensors, before a model of this size is built."""
    for part in (config, config.get_text_config(), getattr(config, "vision_config", None)):
        count = getattr(part, "num_hidden_layers", None)
        if isinstance(count, int) and count > len(files.tensors):
            raise CheckpointError(
                f"{path}: num_hidden_layers in config.json is {count:,}, and the files hold {len(files.tensors):,} "
                "tensors: correct it, or fetch the weights again"
            )


def _tying(matched: Match, files: TensorFiles) -> tuple[bool, tuple[str, ...]]:
    """Whether head and embedding share their weight, and the corrections of config.json that follow."""
    stored: Mapping[str, Any] = files.tensors
    differing = [
        (head, source)
        for head, source in matched.tied.items()
        if head in stored and source in stored and not have_same_values(stored[head], stored[source])
    ]
    if not differing:
        return bool(matched.tied), ()
    head, source = differing[0]
    return False, (
        f"tie_word_embeddings in config.json is true, but the stored {head} differs from {source}: using the stored "
        "head and setting the flag to false",
    )


def findings(inspection: Inspection) -> list[tuple[str, str, str]]:
    """The results of an inspection, as rows of property, value and remedy; the remedy is empty if none is needed."""
    record = inspection.record()
    tensors = f"{record['tensors']} in {listed(record['files'], 3)}, all used by the model"
    if inspection.ignored_tensors:
        tensors += f"; ignored: {listed(list(inspection.ignored_tensors), 2)}"
    head = "the embedding (tied)" if inspection.is_tied else "a separate tensor"
    lines = [
        ("model", f"{inspection.model_class.__name__} (family {inspection.family.name})", ""),
        ("folder", str(inspection.folder), ""),
        ("tensors", tensors, ""),
        ("parameters", f"{inspection.parameters:,}", ""),
        ("stored as", ", ".join(inspection.stored_formats), ""),
        ("computes in", words(inspection.number_format), ""),
        ("head", head, ""),
    ]
    if inspection.ignored_files:
        lines.append(("files never read", listed(list(inspection.ignored_files), 5), ""))
    lines += [("config.json", line, "correct config.json") for line in inspection.corrections]
    return lines
