"""Block-by-block calibration of models larger than memory, bit-identical to the pass in memory.

Each block is loaded, processes every sample, and is released; its statistics are then complete. The hidden states of
all samples pass from block to block in memory or in a file. They are saved after every block together with the
statistics so far, so that an interrupted pass resumes at the block where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prunelab.calibration.collect import TOKENS_A_BATCH, Collector
from prunelab.calibration.statistics import ActivationStatistics
from prunelab.errors import DataError
from prunelab.io.atomic_write import report_os_errors, require_space, write_text
from prunelab.io.fingerprint import tensor_bytes
from prunelab.io.folder_lock import LOCK, locked
from prunelab.io.lazy import inference_mode, torch
from prunelab.io.paths import require_output_folder
from prunelab.io.structured import read_json_object
from prunelab.models.rotary import RotaryLengths
from prunelab.models.tokenizer_validation import check_ids

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration.corpus import CalibrationSet
    from prunelab.models.streaming.decoder import StreamedDecoder

STATE, STATISTICS = "state.json", "statistics.safetensors"


class HiddenStates:
    """The hidden states of all samples between two blocks, shape `(samples, tokens, hidden)`.

    A block reads one copy and writes the other, so that the input of an interrupted block is intact.

    Args:
        folder: folder of the two copies.
        shape: `(samples, tokens, hidden)`.
        dtype: number format of the hidden states.
        in_memory: whether to keep them in memory as well, so that blocks do not wait for the disk.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], dtype: torch.dtype, in_memory: bool) -> None:
        self.folder = folder
        self.shape = shape
        self.dtype = dtype
        self.memory = torch.empty(shape, dtype=dtype) if in_memory else None
        self.current = 0
        self.sample_bytes = shape[1] * shape[2] * dtype.itemsize

    def path(self, copy: int) -> Path:
        """The file of one of the two copies."""
        return self.folder / f"hidden-{copy}.bin"

    def begin(self) -> None:
        """Allocate the file that the next block writes."""
        with self.path(1 - self.current).open("wb") as file:
            file.truncate(self.shape[0] * self.sample_bytes)

    def read(self, start: int, stop: int) -> Tensor:
        """The inputs of the next block for the samples from `start` to `stop`, shape `(samples, tokens, hidden)`."""
        if self.memory is not None:
            return self.memory[start:stop]
        return self._read(start, stop)

    def _read(self, start: int, stop: int) -> Tensor:
        part = torch.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        with self.path(self.current).open("rb", buffering=0) as file:
            file.seek(start * self.sample_bytes)
            buffer, done = tensor_bytes(part.reshape(-1)), 0
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise DataError(f"{self.path(self.current)} is truncated: delete {self.folder} and start again")
                done += count
        return part

    def write(self, start: int, states: Tensor) -> None:
        """Store a block's outputs, shape `(samples, tokens, hidden)`, for the samples from `start` on."""
        states = states.detach().cpu()
        if self.memory is not None:
            self.memory[start : start + len(states)] = states
        with self.path(1 - self.current).open("r+b", buffering=0) as file:
            file.seek(start * self.sample_bytes)
            rest = tensor_bytes(states.reshape(-1))
            while rest:
                rest = rest[file.write(rest) :]

    def turn(self) -> None:
        """Swap the copies after a block: its outputs become the inputs of the next block."""
        self.current = 1 - self.current

    def resume(self, current: int) -> None:
        """Resume from one of the two copies.

        Raises:
            DataError: its file is incomplete.
        """
        self.current = current
        if self.path(current).stat().st_size != self.shape[0] * self.sample_bytes:
            raise DataError(f"{self.path(current)} is incomplete: delete {self.folder} and start again")
        if self.memory is not None:
            for start in range(self.shape[0]):
                self.memory[start : start + 1] = self._read(start, start + 1)


@inference_mode
def calibrate_streaming(
    decoder: StreamedDecoder,
    calibration: CalibrationSet,
    folder: Path,
    key: str,
    *,
    in_memory: bool = True,
    tokens_a_batch: int = TOKENS_A_BATCH,
    progress: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> ActivationStatistics:
    """Collect the statistics of `calibrate` with one block in memory at a time.

    Args:
        decoder: the model.
        calibration: the tokens.
        folder: folder of the hidden states and of an interrupted pass; it is deleted at the end.
        key: hash of everything the pass depends on besides `tokens_a_batch`; a pass with another key does not resume.
        in_memory: whether to keep hidden states in memory as well as in files.
        tokens_a_batch: tokens in a batch.
        progress: called with the number of samples done, averaged over blocks.
        note: called with a line when an interrupted pass resumes.

    Raises:
        NonFiniteValue: an activation is NaN or infinite; names the module.
        DiskFull: the hidden states do not fit on the disk; checked before anything is computed where possible.
        DataError: a token id has no row in the model's embedding.
        InvalidRequest: another process runs the same calibration.
    """
    check_ids(decoder.model, int(calibration.token_ids.max()), "the calibration text")
    if calibration.pairs is not None:
        RotaryLengths([decoder.model]).require_one_class(
            "the model", calibration.sequence_length, "questions with images are padded to one length"
        )
    samples, tokens = calibration.token_ids.shape
    blocks, hidden = len(decoder.shapes), decoder.shapes[0].hidden
    states = HiddenStates(folder, (samples, tokens, hidden), decoder.model.dtype, in_memory)
    key = f"{key}-{tokens_a_batch}"
    with report_os_errors(folder), locked(folder, "calibration", "wait until it is done; its statistics are cached"):
        done, statistics = _resumed(folder, key, states)
        if statistics is None:
            (folder / STATE).unlink(missing_ok=True)  # it is outdated once hidden states are written
            require_space(folder, 2 * samples * states.sample_bytes)
            states.begin()
            start = 0
            for inputs in _entered(decoder, calibration, _samples_a_batch(calibration, tokens_a_batch)):
                states.write(start, inputs)
                start += len(inputs)
            states.turn()
            statistics = Collector(decoder).statistics(calibration)
        elif note is not None:
            note(f"calibration resumes after block {done} of {blocks}, where it was interrupted")
        for block in range(done, blocks):
            states.begin()
            collector = Collector(decoder)
            for through in _run_block(decoder, calibration, states, collector, block, tokens_a_batch):
                if progress is not None:
                    progress(int((block * samples + through) / blocks))
            statistics = statistics.with_block(block, collector.statistics(calibration))
            states.turn()
            statistics.save(folder / STATISTICS)
            state = {"key": key, "blocks": block + 1, "current": states.current}
            write_text(folder / STATE, json.dumps(state) + "\n")
        shutil.rmtree(folder)
    return statistics


def require_streaming_folder(folder: Path) -> None:
    """Refuse a folder for hidden states that holds other files: it is deleted at the end of the pass.

    Raises:
        OutputExists: the folder holds other files; names one.
        InvalidRequest: the folder cannot be created.
    """
    require_output_folder(folder, True, _foreign, "the hidden states of an interrupted calibration")


def _foreign(folder: Path) -> str | None:
    """Name a file in the folder that no calibration pass wrote; None if there is none."""
    known = (LOCK, STATE, STATISTICS, "hidden-0.bin", "hidden-1.bin")
    for path in sorted(folder.iterdir()):
        temporary = path.name.startswith((f".{STATE}-", f".{STATISTICS}-"))
        if not (path.name in known or temporary) or path.is_symlink() or not path.is_file():
            return f"such as {path.name}"
    return None


def _samples_a_batch(calibration: CalibrationSet, tokens_a_batch: int) -> int:
    return max(1, tokens_a_batch // calibration.sequence_length)


def _entered(decoder: StreamedDecoder, calibration: CalibrationSet, step: int) -> Iterator[Tensor]:
    """The inputs of the first block in batches of samples; samples with images in the batches of `calibrate`."""
    if calibration.pairs is None:
        yield from decoder.embed(calibration.token_ids)
        return
    with decoder.seeing():
        for start in range(0, len(calibration.token_ids), step):
            stop = start + step
            ids, mask = calibration.token_ids[start:stop].to(decoder.device), calibration.mask_of(start, stop)
            mask = None if mask is None else mask.to(decoder.device)
            yield decoder.entered(ids, mask, calibration.pairs.of(start, stop))[0]


def _run_block(
    decoder: StreamedDecoder,
    calibration: CalibrationSet,
    states: HiddenStates,
    collector: Collector,
    block: int,
    tokens_a_batch: int,
) -> Iterator[int]:
    """Run every sample through a block; yields the number of samples done."""
    samples = states.shape[0]
    step = _samples_a_batch(calibration, tokens_a_batch)
    with decoder.loaded(block) as module, collector.attached([block]):
        for start in range(0, samples, step):
            stop = min(start + step, samples)
            mask = calibration.mask_of(start, stop)
            collector.mask = None if mask is None else mask.to(decoder.device)
            inputs = states.read(start, stop).to(decoder.device)
            outputs = module(inputs, **decoder.given(inputs, collector.mask)[block])
            states.write(start, outputs)
            counted = inputs.shape[0] * inputs.shape[1] if mask is None else int(mask.sum())
            del inputs, outputs
            collector.join(counted)
            yield stop


def _resumed(folder: Path, key: str, states: HiddenStates) -> tuple[int, ActivationStatistics | None]:
    """The blocks that an interrupted pass completed, and their statistics; 0 and None if there is no such pass."""
    try:
        state = read_json_object(folder / STATE)
        if state["key"] != key:
            return 0, None
        done, statistics = int(state["blocks"]), ActivationStatistics.load(folder / STATISTICS)
        states.resume(int(state["current"]))
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return 0, None
    return done, statistics
