"""A model's folder, inspected before anything is computed: the same for models in memory, streamed and spread.

Headers and config.json are read; of the weights nothing, except embeddings and head where both are stored and
config.json says that they are one.
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

# What the libraries raise where a configuration describes no model.
_NO_MODEL = (
    ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError, ImportError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """What a model's folder holds, and how every reader takes it.

    Attributes:
        name: what the model is called in tables.
        path: its folder, or its id on the hub, as it was given.
        folder: where its files lie.
        family: its family.
        model_class: the class that builds it.
        config: its configuration; the flag for tied embeddings and the number format are as the weights are.
        files: its tensors by the model's names; of tied ones at least one.
        number_format: in which it computes where nobody asks for another.
        is_tied: whether its head is its embedding.
        ignored_tensors: stored tensors that change nothing.
        ignored_files: other files with weights, which no reader opens.
        corrections: what config.json says otherwise than the weights, a sentence each.
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
        """The model without values; see `empty_model`."""
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
        """What the weights take in a number format, or in their own."""
        return self.parameters * (dtype or self.number_format).itemsize

    def record(self) -> dict[str, Any]:
        """What plans and model cards keep of it."""
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
    """Compare what a folder holds with the model that its configuration describes.

    Args:
        folder: where the files lie.
        config: the configuration in it.
        family: the model's family.
        model_class: the class that builds it.
        name: what the model is called in tables.
        path: the folder, or the id on the hub, as it was given.

    Raises:
        CheckpointError: tensors are missing, left over, of another shape or quantised; files are missing, damaged or
            ambiguous, or an adapter's; config.json describes no model.
        UnsupportedModel: the weights are quantised, and config.json says so.
    """
    _refuse_quantised(config, path)
    files = TensorFiles.open(folder)
    _check_count(config, files, path)
    chosen, is_named = number_format_of(config, (tensor.dtype for tensor in files.tensors.values()), path)
    try:
        model = empty_model(model_class, copy.deepcopy(config), chosen)
    except _NO_MODEL as error:
        raise CheckpointError(
            f"{path}: config.json does not describe a model that transformers can build ({first_line(error)}): correct "
            "it, or fetch it again"
        ) from error
    found = match(model, files.tensors)
    if (reason := Mismatch(found, files.tensors, Renaming(model), config).explanation()) is not None:
        raise CheckpointError(f"{path}: {reason}")
    by_name = TensorFiles(folder, {name: files.tensors[source] for name, source in found.sources.items()})
    tied, corrections = _tying(found, by_name)
    settled = copy.deepcopy(with_flag(config, tied) if found.tied else config)
    settled.dtype = chosen
    if not is_named:
        corrections += (f"config.json names no number format: {words(chosen)} is the weights' own",)
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
        ignored_tensors=tuple(found.harmless),
        ignored_files=find_weight_files(folder).ignored,
        corrections=corrections,
    )


def _refuse_quantised(config: PreTrainedConfig, path: str) -> None:
    parts = (config, config.get_text_config())
    if any(getattr(part, name, None) is not None for part in parts for name in ("quantization_config",)):
        raise UnsupportedModel(f"{path} is quantised, and its rows cannot be cut: give the checkpoint it was made from")
    other = getattr(config, "transformers_weights", None)
    if other is not None:
        raise CheckpointError(
            f"{path}: transformers_weights in config.json names {other!s:.80}, and weights are read under their usual "
            "names only: rename the file to model.safetensors and leave the field out"
        )


def _check_count(config: PreTrainedConfig, files: TensorFiles, path: str) -> None:
    """Refuse more blocks than there are tensors, before a model of so many is built."""
    for part in (config, config.get_text_config(), getattr(config, "vision_config", None)):
        count = getattr(part, "num_hidden_layers", None)
        if isinstance(count, int) and count > len(files.tensors):
            raise CheckpointError(
                f"{path}: num_hidden_layers in config.json is {count:,}, and the files hold {len(files.tensors):,} "
                "tensors: correct it, or fetch the weights again"
            )


def _tying(found: Match, files: TensorFiles) -> tuple[bool, tuple[str, ...]]:
    """Whether head and embeddings are one tensor, and what of config.json that corrects."""
    held: Mapping[str, Any] = files.tensors
    differing = [
        (head, source)
        for head, source in found.tied.items()
        if head in held and source in held and not have_same_values(held[head], held[source])
    ]
    if not differing:
        return bool(found.tied), ()
    head, source = differing[0]
    return False, (
        f"tie_word_embeddings in config.json is true, but the stored {head} differs from {source}: the stored head is "
        "kept, and the flag corrected",
    )


def findings(inspection: Inspection) -> list[tuple[str, str, str]]:
    """What the inspection found, as lines of what, value and remedy; the remedy is empty where nothing is wanting."""
    record = inspection.record()
    tensors = f"{record['tensors']} in {listed(record['files'], 3)}, all of them the model's"
    if inspection.ignored_tensors:
        tensors += f"; ignored: {listed(list(inspection.ignored_tensors), 2)}"
    head = "the embeddings (tied)" if inspection.is_tied else "a tensor of its own"
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
