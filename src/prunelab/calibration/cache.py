"""Calibration of one model: draw the calibration set, collect the statistics once and cache them on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.calibration import (
    ActivationStatistics,
    CalibrationSet,
    calibrate,
    draw_calibration_set,
    draw_pairs,
    is_pairs,
)
from prunelab.calibration.collect import TOKENS_A_BATCH
from prunelab.calibration.streaming import calibrate_streaming, require_streaming_folder
from prunelab.errors import DataError, InvalidRequest
from prunelab.io.bounds import CALIBRATION, check_all
from prunelab.io.fingerprint import content_hash
from prunelab.io.lazy import torch
from prunelab.io.outputs import is_statistics
from prunelab.io.paths import require_output_file
from prunelab.models.memory import MOMENTS_SHARE, Eyes, format_bytes, free_memory, held, moments_bytes, plan_streaming
from prunelab.models.streaming.model import StreamedModel

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel

CalibrationProgress = Callable[[int], None]
_KEPT = re.compile(r"[0-9a-f]{16}\.safetensors")
"""Names of the files of statistics in the cache."""


@dataclass(frozen=True)
class CalibrationOptions:
    """Corpus, size and seed of the calibration set; see `draw_calibration_set`."""

    corpus: str = "wikitext2"
    samples: int = 128
    sequence_length: int = 2048
    held_out: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise InvalidRequest for numbers that are out of bounds."""
        check_all(vars(self), CALIBRATION)


def cache_folder() -> Path:
    """The cache folder of statistics: `PRUNELAB_CACHE`, else `prunelab` in the user's cache folder."""
    if os.environ.get("PRUNELAB_CACHE"):
        return Path(os.environ["PRUNELAB_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunelab"


def draw_for(model: LanguageModel, options: CalibrationOptions, datasets_root: Path | None = None) -> CalibrationSet:
    """Draw the calibration set for these options, with windows no longer than the model's context.

    Args:
        model: its tokenizer (for text) or its processor (for images with text) encodes the samples.
        options: corpus, number and length of the samples, and seed.
        datasets_root: folder with copies of the hub's data sets.

    Raises:
        InvalidRequest: the corpus holds images and the model takes none, or a number is out of bounds.
        DataError: the corpus is missing or too small.
    """
    common: dict[str, Any] = {
        "samples": options.samples,
        "sequence_length": min(options.sequence_length, model.context_length),
        "held_out": options.held_out,
        "seed": options.seed,
        "datasets_root": datasets_root,
    }
    if is_pairs(options.corpus):
        return draw_pairs(options.corpus, model.processor, **common)
    return draw_calibration_set(options.corpus, model.tokenizer, **common)


def statistics_key(model: LanguageModel, calibration: CalibrationSet) -> str:
    """Hash of everything the statistics depend on (model, number format and tokens): 16 hexadecimal digits."""
    return content_hash({"model": model.fingerprint, "dtype": model.dtype, "calibration": calibration.fingerprint})


def statistics_path(model: LanguageModel, calibration: CalibrationSet) -> Path:
    """The cache file of a model's statistics on these tokens."""
    return cache_folder() / "statistics" / f"{statistics_key(model, calibration)}.safetensors"


def require_statistics_place(path: Path) -> None:
    """Refuse a statistics file that cannot be written, or that exists and holds something else.

    Raises:
        InvalidRequest: names the obstacle.
    """
    # A damaged file of the cache itself may be replaced; PRUNELAB_CACHE may name a folder of the user.
    is_cache = path.parent == cache_folder() / "statistics" and _KEPT.fullmatch(path.name) is not None
    try:
        require_output_file(path, True, None if is_cache else is_statistics, "calibration statistics of prunelab")
        require_streaming_folder(_streaming_folder(path))
    except InvalidRequest as error:
        if not is_cache:
            raise
        raise InvalidRequest(
            f"the cache of calibration statistics cannot be used: {error}; or set PRUNELAB_CACHE to a writable folder"
        ) from error


def _streaming_folder(path: Path) -> Path:
    """The folder for the hidden states of a streamed pass that writes its statistics to `path`."""
    return path.with_name(f"{path.name}.streaming")


def calibrated(
    model: LanguageModel,
    calibration: CalibrationSet,
    path: Path,
    progress: CalibrationProgress | None = None,
    memory: int | None = None,
    note: Callable[[str], None] | None = None,
    moments: bool = False,
) -> ActivationStatistics:
    """Load the statistics from `path` if they belong to this model and these tokens, else collect and save them.

    Second moments are collected as well if `moments` is true, the model is in memory, and they take at most a quarter
    (`MOMENTS_SHARE`) of the free memory. A streamed model has none: they are several times as large as its weights.
    Statistics files never hold second moments, so that cached statistics need a further pass for them.

    Args:
        model: the model; a streamed model is calibrated block by block, with its hidden states in a folder next to
            `path`.
        calibration: the tokens.
        path: the statistics file.
        progress: called with the number of samples done.
        memory: the most bytes that the process may hold; the free memory by default.
        note: called with a line when an interrupted pass resumes, and with how second moments are obtained.
        moments: whether the method needs second moments.

    Raises:
        InvalidRequest: `path` cannot be written, or holds something other than statistics.
        NonFiniteValue: an activation is NaN or infinite; names the module.
        DiskFull: a streamed model's hidden states do not fit on the disk.
    """
    require_statistics_place(path)
    key = statistics_key(model, calibration)
    cached = _kept(path, key)
    moments = moments and _hold_moments(model, memory, cached is not None, note or (lambda line: None))
    if cached is not None and not moments:
        return cached
    if isinstance(model, StreamedModel):
        collected = _calibrate_streamed(model, calibration, path, key, progress, memory, note)
    else:
        collected = calibrate(model.decoder, calibration, progress=progress, moments=moments)
    if cached is not None:
        return replace(cached, second=collected.second)
    provenance = {**collected.provenance, "key": key, "model": model.name, "fingerprint": model.fingerprint}
    collected = replace(collected, provenance=provenance)
    collected.save(path)
    return collected


def _kept(path: Path, key: str) -> ActivationStatistics | None:
    """The statistics in a file; None if they have another key, or are damaged."""
    if not path.exists():
        return None
    try:
        statistics = ActivationStatistics.load(path)
    except DataError:
        return None
    return statistics if statistics.provenance.get("key") == key else None


def _hold_moments(model: LanguageModel, memory: int | None, again: bool, note: Callable[[str], None]) -> bool:
    """Decide whether to collect second moments, and report the decision and its cost.

    Args:
        model: the model.
        memory: the most bytes that the process may hold; the free memory by default.
        again: whether the statistics themselves are cached.
        note: called with the reported line.
    """
    size, available = moments_bytes(model.decoder.shapes), free_memory(torch.device("cpu"))
    available = available if memory is None else max(0, min(available, memory - held()))
    if not isinstance(model, StreamedModel) and size <= MOMENTS_SHARE * available:
        how = "in a separate pass, because the other statistics are cached," if again else "in the same pass"
        note(
            f"second moments ({format_bytes(size)}) are collected {how} and held in memory: least squares needs no "
            "further pass"
        )
        return True
    why = (
        f"{model.name} is read block by block"
        if isinstance(model, StreamedModel)
        else f"they take {format_bytes(size)}, more than a quarter of the free {format_bytes(available)}"
    )
    note(f"second moments are not held in memory, because {why}: least squares needs a separate pass for each cut")
    return False


def _calibrate_streamed(
    model: StreamedModel,
    calibration: CalibrationSet,
    path: Path,
    key: str,
    progress: CalibrationProgress | None,
    memory: int | None,
    note: Callable[[str], None] | None,
) -> ActivationStatistics:
    already = held()
    samples, length = calibration.token_ids.shape
    plan = plan_streaming(
        model.decoder.shapes,
        itemsize=model.model.dtype.itemsize,
        vocabulary=model.model.get_input_embeddings().num_embeddings,
        samples=samples,
        sequence_length=length,
        tokens_a_batch=TOKENS_A_BATCH,
        budget=memory or already + free_memory(model.device),
        already=already,
        eyes=_eyes(model, calibration),
    )
    return calibrate_streaming(
        model.decoder,
        calibration,
        _streaming_folder(path),
        key,
        in_memory=plan.in_memory,
        tokens_a_batch=plan.tokens_a_batch,
        progress=progress,
        note=note,
    )


def _eyes(model: StreamedModel, calibration: CalibrationSet) -> Eyes | None:
    """The memory of the vision encoder, estimated from the first samples' images; None for text."""
    if calibration.pairs is None:
        return None
    few = max(1, min(TOKENS_A_BATCH // calibration.sequence_length, len(calibration.token_ids)))
    pixels = calibration.pairs.of(0, few)["pixel_values"]
    vision, itemsize = model.model.config.vision_config, model.model.dtype.itemsize
    patches = pixels[..., 0, :, :].numel() / few / vision.patch_size**2
    # As in a decoder block: about eight hidden states and three intermediates a patch; and the pixels twice.
    a_patch = itemsize * (8 * vision.hidden_size + 3 * vision.intermediate_size)
    tensors = model.model.state_dict()
    weights = sum(tensors[name].numel() for name in model.decoder.ahead) * itemsize
    return Eyes(weights, int(patches * a_patch + 2 * pixels.numel() / few * pixels.element_size()))
