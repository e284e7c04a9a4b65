"""A model's calibration: which text is drawn for it, and its statistics, collected once and kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

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
    """Which text to calibrate on; see `draw_calibration_set`."""

    corpus: str = "wikitext2"
    samples: int = 128
    sequence_length: int = 2048
    held_out: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that are out of bounds."""
        check_all(vars(self), CALIBRATION)


def cache_folder() -> Path:
    """Where statistics are kept between commands: PRUNELAB_CACHE, else the user's cache folder."""
    if os.environ.get("PRUNELAB_CACHE"):
        return Path(os.environ["PRUNELAB_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunelab"


def draw_for(model: LanguageModel, options: CalibrationOptions, datasets_root: Path | None = None) -> CalibrationSet:
    """The calibration set of these options, its windows cut to the model's context."""
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
    """What the statistics depend on: model, number format and tokens; 16 hexadecimal digits."""
    return content_hash({"model": model.fingerprint, "dtype": model.dtype, "calibration": calibration.fingerprint})


def statistics_path(model: LanguageModel, calibration: CalibrationSet) -> Path:
    """Where a model's statistics of these tokens are kept between commands."""
    return cache_folder() / "statistics" / f"{statistics_key(model, calibration)}.safetensors"


def require_statistics_place(path: Path) -> None:
    """Refuse a file for statistics that cannot be written, or that exists and does not hold statistics.

    Raises:
        InvalidRequest: naming what is in the way.
    """
    # Of the cache's own files any may be replaced, also a damaged one; PRUNELAB_CACHE may name a folder of the user's.
    kept = path.parent == cache_folder() / "statistics" and _KEPT.fullmatch(path.name) is not None
    try:
        require_output_file(path, True, None if kept else is_statistics, "calibration statistics of prunelab")
        require_streaming_folder(_streaming_folder(path))
    except InvalidRequest as error:
        if not kept:
            raise
        raise InvalidRequest(
            f"the cache of calibration statistics cannot be used: {error}; or set PRUNELAB_CACHE to a folder that can "
            "be written"
        ) from error


def _streaming_folder(path: Path) -> Path:
    """Where the hidden states of a pass are kept whose statistics are written to a file."""
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
    """The statistics in `path` where they are this model's and these tokens', else a pass that writes them there.

    Second moments are held besides where they are of use, the model is in memory, and they take no more than a quarter
    (`MOMENTS_SHARE`) of what memory is left; of a model that is streamed they are not, being several times the weights.
    Files do not hold them, so that statistics that are kept cost the pass once more.

    Args:
        model: the model; one that is streamed is calibrated block by block, its hidden states beside `path`.
        calibration: the tokens.
        path: the statistics' file.
        progress: called with the number of samples done.
        memory: bytes that the process may hold; what is free if not given.
        note: told where a pass that was stopped is gone on with, and how second moments are come by.
        moments: second moments are of use.

    Raises:
        InvalidRequest: `path` cannot be written, or holds something else than statistics.
    """
    require_statistics_place(path)
    key = statistics_key(model, calibration)
    found = _kept(path, key)
    moments = moments and _hold_moments(model, memory, found is not None, note or (lambda line: None))
    if found is not None and not moments:
        return found
    if isinstance(model, StreamedModel):
        collected = _calibrate_streamed(model, calibration, path, key, progress, memory, note)
    else:
        collected = calibrate(model.decoder, calibration, progress=progress, moments=moments)
    if found is not None:
        return replace(found, second=collected.second)
    provenance = {**collected.provenance, "key": key, "model": model.name, "fingerprint": model.fingerprint}
    collected = replace(collected, provenance=provenance)
    collected.save(path)
    return collected


def _kept(path: Path, key: str) -> ActivationStatistics | None:
    """The statistics in a file; None where they are another's, or damaged."""
    if not path.exists():
        return None
    try:
        found = ActivationStatistics.load(path)
    except DataError:
        return None
    return found if found.provenance.get("key") == key else None


def _hold_moments(model: LanguageModel, memory: int | None, again: bool, note: Callable[[str], None]) -> bool:
    """Whether second moments are to be collected with the statistics; says so, and what it costs.

    Args:
        model: the model.
        memory: bytes that the process may hold; what is free if not given.
        again: the statistics themselves are kept.
        note: says a line.
    """
    size, room = moments_bytes(model.decoder.shapes), free_memory(torch.device("cpu"))
    room = room if memory is None else max(0, min(room, memory - held()))
    if not isinstance(model, StreamedModel) and size <= MOMENTS_SHARE * room:
        how = "in a pass of their own, as the statistics are kept" if again else "in the same pass"
        note(
            f"second moments ({format_bytes(size)}) are collected {how}, and held: least squares costs no further pass"
        )
        return True
    why = (
        f"{model.name} is read block by block"
        if isinstance(model, StreamedModel)
        else f"they take {format_bytes(size)}, more than a quarter of the {format_bytes(room)} that are left"
    )
    note(f"second moments are not held, as {why}: each cut by least squares takes a pass of its own")
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
    way = plan_streaming(
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
        in_memory=way.in_memory,
        tokens_a_batch=way.tokens_a_batch,
        progress=progress,
        note=note,
    )


def _eyes(model: StreamedModel, calibration: CalibrationSet) -> Eyes | None:
    """What seeing takes, by the first samples' images; None for text."""
    if calibration.pairs is None:
        return None
    few = max(1, min(TOKENS_A_BATCH // calibration.sequence_length, len(calibration.token_ids)))
    pixels = calibration.pairs.of(0, few)["pixel_values"]
    vision, itemsize = model.model.config.vision_config, model.model.dtype.itemsize
    patches = pixels[..., 0, :, :].numel() / few / vision.patch_size**2
    # As a block's: about eight states of a patch and three intermediates; and the pixels twice.
    a_patch = itemsize * (8 * vision.hidden_size + 3 * vision.intermediate_size)
    tensors = model.model.state_dict()
    weights = sum(tensors[name].numel() for name in model.decoder.ahead) * itemsize
    return Eyes(weights, int(patches * a_patch + 2 * pixels.numel() / few * pixels.element_size()))
