"""Bring a model in: from a folder or the hub, whole or pruned, and never by running what came with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import AutoProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prunelab.errors import CheckpointError, InvalidRequest, first_line
from prunelab.io.fingerprint import model_fingerprint
from prunelab.io.html import html_table
from prunelab.io.hub import require_hub
from prunelab.io.paths import model_name
from prunelab.models import modeling_prunelab
from prunelab.models.bundled import checkpoint_of
from prunelab.models.config_validation import check_buildable, check_generation_config, read_config
from prunelab.models.documents import check_documents
from prunelab.models.families import Decoder, ModelFamily, decoder_of, find_family
from prunelab.models.fetching import fetched
from prunelab.models.inspection import Inspection, inspect_folder
from prunelab.models.names import is_harmless, listed
from prunelab.models.processor_validation import complete_processor
from prunelab.models.tokenizer_file import as_the_file_says
from prunelab.models.tokenizer_validation import check_tokenizer
from prunelab.models.weight_files import refuse_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, repr=False)
class LanguageModel:
    """A model ready to be calibrated, cut or evaluated; evaluation does not know how it was made.

    Attributes:
        name: what to call it in tables.
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        processor: of a model that sees, what makes its inputs of images and text; None for a language model.
        siblings: models cut out of the same one, this one among them, whose likelihoods are computed in one pass; None
            where it is evaluated alone.
        inspection: what its folder held; None for a model that was made here.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    processor: Any = None
    shared: Any = None
    inspection: Inspection | None = None

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder inside."""
        return decoder_of(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of how it computes and of its weights; see `model_fingerprint`."""
        return model_fingerprint(self.model)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> str:
        """The weights' number format, such as `bfloat16`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int:
        """Tokens that the model can look at."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {self.decoder.parameters:,} parameters, {self.dtype} on {self.device})"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        shape, family = self.decoder.shapes[0], self.decoder.family.name
        rows = [
            ("family", family),
            ("parameters", self.decoder.parameters),
            ("of these in the blocks' projections", self.decoder.cost),
            ("blocks", len(self.decoder.shapes)),
            ("hidden width", shape.hidden),
            ("context", self.context_length),
            ("numbers", f"{self.dtype} on {self.device}"),
        ]
        return html_table(("", ""), rows, self.name)

    def with_model(self, model: PreTrainedModel, name: str | None = None) -> LanguageModel:
        """Another model with the same tokenizer and processor."""
        return LanguageModel(name or self.name, model, self.tokenizer, self.processor)


def best_device() -> torch.device:
    """The fastest device there is."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def parse_device(name: str | None) -> torch.device:
    """A device by name, or the best there is.

    Raises:
        InvalidRequest: no such device here.
    """
    if name is None or name == "auto":
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # what is nowhere, as on `meta`, cannot be had back
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InvalidRequest(f"device {name!r} is not to be had here: {best_device()} is") from None
    return device


def parse_dtype(name: str | None) -> torch.dtype | str:
    """A dtype by name, or `auto`, the checkpoint's own.

    Raises:
        InvalidRequest: an unknown dtype.
    """
    if name is None or name == "auto":
        return "auto"
    if name not in DTYPES:
        raise InvalidRequest(f"dtype {name!r} is not possible: {', '.join(DTYPES)} or auto, the checkpoint's own")
    return DTYPES[name]


def load_model(name: str, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load a checkpoint from a folder or the hub, or one of the pocket models.

    A mixed-width checkpoint of prunelab's is built with prunelab's own copy of its class; code found in a checkpoint is
    never run, and pickled weights are never opened.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; the best there is if not given.
        dtype: `float32`, `bfloat16` or `float16`; the checkpoint's own if not given.

    Raises:
        CheckpointError: missing, gated, damaged, or whatever `inspected` refuses.
        UnsupportedModel: an architecture that no family describes.
        InvalidRequest: an unknown device or dtype.
    """
    parse_device(device)
    parse_dtype(dtype)
    return load_inspected(inspected(name), device=device, dtype=dtype)


def load_inspected(inspection: Inspection, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load an inspected checkpoint into memory; see `load_model`."""
    where, number_format = parse_device(device), parse_dtype(dtype)
    path, config = inspection.path, inspection.config
    # Before the weights, which take long: what cannot be used is refused at once.
    tokenizer = load_tokenizer(path, config)
    processor = load_processor(path, config) if inspection.family.is_multimodal else None
    model = weights_of(inspection, number_format)
    return LanguageModel(inspection.name, model.to(where).eval(), tokenizer, processor, inspection=inspection)


def inspected(name: str) -> Inspection:
    """A checkpoint's folder, inspected before anything of it is computed.

    Args:
        name: a folder, an id on the hub, whose files are fetched, or the name of a pocket model.

    Raises:
        CheckpointError: missing, gated, damaged, an adapter, or tensors that are not those of the model; see
            `inspect_folder`.
        UnsupportedModel: no family describes it, or its weights are quantised.
    """
    called, path, config, family = supported(name)
    if Path(path).is_file():
        raise CheckpointError(f"{path} is a file: give the checkpoint's folder")
    try:
        folder = Path(path) if Path(path).is_dir() else fetched(path)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise explained(path, error) from error
    return inspect_folder(folder, config, family, class_for(config, family), name=called, path=path)


def weights_of(inspection: Inspection, number_format: torch.dtype | str, **placement: Any) -> PreTrainedModel:
    """The transformers model of an inspected checkpoint, its weights read.

    Args:
        inspection: of the checkpoint.
        number_format: a dtype, or `auto`.
        placement: where the weights go, in transformers' words; all into memory if not given.

    Raises:
        CheckpointError: a file changed since it was inspected, or transformers read other tensors than were expected.
    """
    dtype = number_format if isinstance(number_format, torch.dtype) else inspection.number_format
    try:
        model, report = inspection.model_class.from_pretrained(
            str(inspection.folder), config=inspection.config, dtype=dtype, use_safetensors=True,
            trust_remote_code=False, output_loading_info=True, **placement,
        )  # fmt: skip
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, HfHubHTTPError) as error:
        raise explained(inspection.path, error) from error
    _check_report(inspection, report)
    for line in inspection.corrections:
        warnings.warn(f"{inspection.name}: {line}", UserWarning, stacklevel=3)
    model.name_or_path = model.config._name_or_path = inspection.path
    loaded: PreTrainedModel = model
    return loaded


def _check_report(inspection: Inspection, report: Mapping[str, Any]) -> None:
    """Refuse a model in which transformers filled anything at random, whatever the inspection said."""
    extra = {name for name in report["unexpected_keys"] if not is_harmless(name)}
    for names in (report["missing_keys"], report["mismatched_keys"], report["error_msgs"], extra):
        wrong = sorted(map(str, names))
        if wrong:
            raise CheckpointError(
                f"{inspection.path}: transformers did not read {listed(wrong)} as config.json describes: fetch the "
                "checkpoint again"
            )


def supported(name: str) -> tuple[str, str, Any, ModelFamily]:
    """What a checkpoint is called in tables, where it is, its config and its family.

    Raises:
        CheckpointError: the config is missing, gated, damaged, or no model can be built from it.
        UnsupportedModel: no family describes it.
    """
    called, name = short_name(name), str(checkpoint_of(name) or name)
    config = load_config(name)
    family = find_family(config, name)
    check_buildable(name, class_for(config, family), config)
    check_generation_config(name)
    return called, name, config, family


def load_tokenizer(name: str, config: Any = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, with the tokens of its tokenizer.json; see `as_the_file_says`.

    Args:
        name: a folder or an id on the hub.
        config: the model's, whose embedding must have a row for each token; None not to look.

    Raises:
        CheckpointError: it has none that can be read, or one of another model.
    """
    try:
        tokenizer = as_the_file_says(name, AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    except Exception as error:
        raise CheckpointError(
            f"{name} has no tokenizer that can be read ({first_line(error)}): put its files beside the weights"
        ) from error
    check_tokenizer(name, tokenizer, None if config is None else int(config.get_text_config().vocab_size))
    return tokenizer


def load_processor(name: str, config: Any = None) -> Any:
    """What makes inputs of images and text, with the image processor that Pillow suffices for.

    What its files lack and the config says is filled in; see `complete_processor`.

    None, with a warning, where it wants a package that is not there (SmolVLM2's for videos): the language model inside
    can be pruned all the same.

    Raises:
        CheckpointError: its files are missing or damaged.
    """
    try:
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False, backend="pil")
        if getattr(processor, "tokenizer", None) is not None:
            processor.tokenizer = as_the_file_says(name, processor.tokenizer)
    except ImportError as error:
        reason = first_line(error)
        warnings.warn(
            f"{name} can be pruned but shown no images: its processor needs a package ({reason})",
            UserWarning,
            stacklevel=3,
        )
        return None
    except Exception as error:
        raise CheckpointError(
            f"{name} has no image processor that can be read ({first_line(error)}): put preprocessor_config.json and "
            "processor_config.json beside the weights"
        ) from error
    if config is not None:
        complete_processor(processor, config)
    return processor


def load_config(name: str) -> Any:
    """The config of a checkpoint in a folder or on the hub.

    Raises:
        CheckpointError: missing, gated, damaged, or with a value that is not possible; names the field.
        UnsupportedModel: transformers knows no such model type.
    """
    name = str(checkpoint_of(name) or name)
    path = Path(name)
    if path.is_dir():
        refuse_adapter(path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise CheckpointError(f"{name} is no checkpoint: the folder has no config.json; give the folder that has")
    if not path.exists() and (path.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1):
        raise CheckpointError(f"{name} does not exist: give a checkpoint's folder, or an id on the hub")
    if not path.exists():
        require_hub()
    check_documents(path)
    try:
        return read_config(name)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise explained(name, error) from error


def class_for(config: Any, family: ModelFamily) -> Any:
    """The class that builds a model of a family; for mixed widths prunelab's own, never one that came with it."""
    if family.mixed_class in (config.architectures or ()):
        return getattr(modeling_prunelab, family.mixed_class)
    return getattr(transformers, family.stock_class)


def short_name(name: str) -> str:
    """What a model is called in tables: its folder's name, or its id on the hub."""
    model_name(name)
    return Path(name).resolve().name if Path(name).is_dir() else name


def _causes(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def explained(name: str, error: Exception) -> CheckpointError:
    """One line for whatever went wrong while loading: what, and the remedy."""
    causes = _causes(error)
    reason = first_line(error)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return CheckpointError(
            f"{name} is gated: accept its terms at https://huggingface.co/{name} and run `hf auth login` once"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return CheckpointError(
            f"{name} is neither a folder nor a repository that you can see on the hub: check the name, or run "
            "`hf auth login` if it is private"
        )
    if not Path(name).exists():
        return CheckpointError(
            f"{name} is not a folder here, and the hub did not give it ({reason}): download it on a machine with "
            "internet (`hf download`) and give its folder"
        )
    if "safetensors" in reason and list(Path(name).glob("*.bin")):
        return CheckpointError(
            f"{name} holds pickled weights, which prunelab never opens: convert them to safetensors first"
        )
    return CheckpointError(f"{name} cannot be loaded, a file of it is missing or damaged ({reason}): fetch it again")
