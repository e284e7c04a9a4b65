"""Load a dense or pruned model from a folder or the hub; code in a checkpoint is never run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from prunelab.errors import CheckpointError, InvalidRequest, first_line
from prunelab.io.fingerprint import model_fingerprint
from prunelab.io.html import html_table
from prunelab.io.hub import require_hub
from prunelab.io.lazy import torch, transformers
from prunelab.io.paths import model_name
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

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, repr=False)
class LanguageModel:
    """A model with its tokenizer, ready to be calibrated, pruned or evaluated.

    Attributes:
        name: the model's name in tables.
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        processor: for a vision-language model, the processor of images and text; None for a language model.
        shared: models pruned from the same dense model, this one included, whose likelihoods are computed in one pass;
            None if the model is evaluated alone.
        inspection: the inspection of its folder; None for a model created in memory.
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
        """Hash of its configuration and weights; see `model_fingerprint`."""
        return model_fingerprint(self.model)

    @property
    def device(self) -> torch.device:
        """The device that runs the model."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> str:
        """The weights' number format, such as `bfloat16`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int:
        """The model's context length in tokens."""
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
    """The fastest available device: CUDA, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def parse_device(name: str | None) -> torch.device:
    """A device by name; the best available device for None or `auto`.

    Raises:
        InvalidRequest: the device is unknown or not available.
    """
    if name is None or name == "auto":
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # fails on `meta`, whose tensors have no data
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InvalidRequest(f"device {name!r} is not available: give {best_device()} or auto") from None
    return device


def parse_dtype(name: str | None) -> torch.dtype | str:
    """A dtype by name; `auto` (the checkpoint's own dtype) for None or `auto`.

    Raises:
        InvalidRequest: the dtype is not supported.
    """
    if name is None or name == "auto":
        return "auto"
    if name not in DTYPES:
        raise InvalidRequest(
            f"dtype {name!r} is not supported: give {', '.join(DTYPES)}, or auto for the checkpoint's own"
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_model(name: str, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load a checkpoint from a folder or the hub, or one of the pocket models.

    A checkpoint with blocks of different widths is built with prunelab's own copy of its class. Code in a checkpoint is
    never run, and pickled weights are never opened.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; by default the best available device.
        dtype: `float32`, `bfloat16` or `float16`; by default the checkpoint's own.

    Raises:
        CheckpointError: the checkpoint is missing, gated or damaged, or `inspected` refuses it.
        UnsupportedModel: no family covers the architecture.
        InvalidRequest: the device or the dtype is not available.
    """
    parse_device(device)
    parse_dtype(dtype)
    return load_inspected(inspected(name), device=device, dtype=dtype)


def load_inspected(inspection: Inspection, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load an inspected checkpoint into memory; arguments and errors as in `load_model`."""
    where, number_format = parse_device(device), parse_dtype(dtype)
    path, config = inspection.path, inspection.config
    # Before the weights, which take long to load: invalid tokenizers and processors are refused first.
    tokenizer = load_tokenizer(path, config)
    processor = load_processor(path, config) if inspection.family.is_multimodal else None
    model = weights_of(inspection, number_format)
    return LanguageModel(inspection.name, model.to(where).eval(), tokenizer, processor, inspection=inspection)


def inspected(name: str) -> Inspection:
    """Inspect a checkpoint's folder before anything is computed; fetches the files of a checkpoint on the hub.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.

    Raises:
        CheckpointError: the checkpoint is missing, gated, damaged or an adapter, or its tensors do not match the model;
            see `inspect_folder`.
        UnsupportedModel: no family covers the architecture, or the weights are quantised.
    """
    from huggingface_hub.errors import HfHubHTTPError

    called, path, config, family = supported(name)
    if Path(path).is_file():
        raise CheckpointError(f"{path} is a file, not a checkpoint: give the checkpoint's folder")
    try:
        folder = Path(path) if Path(path).is_dir() else fetched(path)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise explained(path, error) from error
    return inspect_folder(folder, config, family, class_for(config, family), name=called, path=path)


def weights_of(inspection: Inspection, number_format: torch.dtype | str, **placement: Any) -> PreTrainedModel:
    """Load the transformers model of an inspected checkpoint with its weights.

    Args:
        inspection: the inspected checkpoint.
        number_format: a dtype, or `auto`.
        placement: options of `from_pretrained` that place the weights; all in memory by default.

    Raises:
        CheckpointError: a file changed after the inspection, or transformers did not load the expected tensors.
    """
    from huggingface_hub.errors import HfHubHTTPError

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
    """Refuse a model in which transformers initialised any tensor at random, even after a successful inspection."""
    extra = {name for name in report["unexpected_keys"] if not is_harmless(name)}
    for names in (report["missing_keys"], report["mismatched_keys"], report["error_msgs"], extra):
        wrong = sorted(map(str, names))
        if wrong:
            raise CheckpointError(
                f"{inspection.path}: transformers did not load {listed(wrong)} as config.json describes: fetch the "
                "checkpoint again"
            )


def supported(name: str) -> tuple[str, str, Any, ModelFamily]:
    """A checkpoint's name in tables, its path or id, its config and its family.

    Raises:
        CheckpointError: the config is missing, gated or damaged, or no model can be built from it.
        UnsupportedModel: no family covers the architecture.
    """
    called, name = short_name(name), str(checkpoint_of(name) or name)
    config = load_config(name)
    family = find_family(config, name)
    check_buildable(name, class_for(config, family), config)
    check_generation_config(name)
    return called, name, config, family


def load_tokenizer(name: str, config: Any = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint, with the tokens of its tokenizer.json; see `as_the_file_says`.

    Args:
        name: a folder or an id on the hub.
        config: the model's config, whose embedding must have a row for each token; None skips the check.

    Raises:
        CheckpointError: the tokenizer is missing or damaged, or belongs to another model.
    """
    try:
        tokenizer = as_the_file_says(name, transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    except Exception as error:
        raise CheckpointError(
            f"{name} has no readable tokenizer ({first_line(error)}): put the tokenizer's files beside the weights"
        ) from error
    check_tokenizer(name, tokenizer, None if config is None else int(config.get_text_config().vocab_size))
    return tokenizer


def load_processor(name: str, config: Any = None) -> Any:
    """Load the processor of images and text, with the image processor that needs Pillow only.

    Fields that its files lack are filled in from the config; see `complete_processor`.

    Args:
        name: a folder or an id on the hub.
        config: the model's config; None fills in nothing.

    Returns:
        The processor; None, with a warning, if it needs a missing package (SmolVLM2's for videos). The language model
        can still be pruned.

    Raises:
        CheckpointError: the processor's files are missing or damaged.
    """
    try:
        processor = transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False, backend="pil")
        if getattr(processor, "tokenizer", None) is not None:
            processor.tokenizer = as_the_file_says(name, processor.tokenizer)
    except ImportError as error:
        reason = first_line(error)
        warnings.warn(
            f"{name} can be pruned, but it cannot process images: its processor needs a missing package ({reason})",
            UserWarning,
            stacklevel=3,
        )
        return None
    except Exception as error:
        raise CheckpointError(
            f"{name} has no readable image processor ({first_line(error)}): put preprocessor_config.json and "
            "processor_config.json beside the weights"
        ) from error
    if config is not None:
        complete_processor(processor, config)
    return processor


def load_config(name: str) -> Any:
    """Load the config of a checkpoint in a folder or on the hub, or of a pocket model.

    Raises:
        CheckpointError: the config is missing, gated or damaged, or has an invalid value; names the field.
        UnsupportedModel: transformers does not know the model type.
    """
    from huggingface_hub.errors import HfHubHTTPError

    name = str(checkpoint_of(name) or name)
    path = Path(name)
    if path.is_dir():
        refuse_adapter(path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise CheckpointError(f"{name} is not a checkpoint: give the folder that contains config.json")
    if not path.exists() and (path.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1):
        raise CheckpointError(f"{name} does not exist: give a checkpoint's folder or an id on the hub")
    if not path.exists():
        require_hub()
    check_documents(path)
    try:
        return read_config(name)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise explained(name, error) from error


def class_for(config: Any, family: ModelFamily) -> Any:
    """The class that builds a model of a family; prunelab's own for blocks of different widths."""
    from prunelab.models import modeling_prunelab

    if family.mixed_class in (config.architectures or ()):
        return getattr(modeling_prunelab, family.mixed_class)
    return getattr(transformers, family.stock_class)


def short_name(name: str) -> str:
    """A model's name in tables: its folder's name, or its id on the hub."""
    model_name(name)
    return Path(name).resolve().name if Path(name).is_dir() else name


def _causes(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def explained(name: str, error: Exception) -> CheckpointError:
    """Turn an error while loading into one line with the cause and the remedy."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    causes = _causes(error)
    reason = first_line(error)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return CheckpointError(
            f"{name} is gated: accept its terms at https://huggingface.co/{name} and run `hf auth login` once"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return CheckpointError(
            f"{name} is neither a folder nor a visible repository on the hub: check the name, or run `hf auth login` "
            "if it is private"
        )
    if not Path(name).exists():
        return CheckpointError(
            f"{name} is not a local folder, and the download from the hub failed ({reason}): download it on a machine "
            "with internet access (`hf download`) and give its folder"
        )
    if "safetensors" in reason and list(Path(name).glob("*.bin")):
        return CheckpointError(
            f"{name} holds pickled weights, which prunelab never opens: convert them to safetensors first"
        )
    return CheckpointError(
        f"{name} cannot be loaded because a file is missing or damaged ({reason}): fetch the checkpoint again"
    )
