"""Calibration block by block, for models larger than memory: the numbers of the one pass, to the bit.

A block is brought in, every sample goes through it, and its statistics are complete; then it makes room for the next.
What goes from block to block are the hidden states of all samples, in memory or in a file. After every block they are
written down beside the statistics so far, so that a pass that was stopped goes on at the block where it was.
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

    A block reads one copy and writes the other, so that a pass that is stopped within a block finds what it began with.

    Args:
        folder: where the copies are kept.
        shape: samples, tokens, hidden.
        dtype: their number format.
        in_memory: keep them in memory as well, so that blocks do not wait for the disk.
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
        """Make room for what the coming block writes."""
        with self.path(1 - self.current).open("wb") as file:
            file.truncate(self.shape[0] * self.sample_bytes)

    def read(self, start: int, stop: int) -> Tensor:
        """Some samples, as the coming block is given them."""
        if self.memory is not None:
            return self.memory[start:stop]
        return self._read(start, stop)

    def _read(self, start: int, stop: int) -> Tensor:
        part = torch.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        with self.path(self.current).open("rb", buffering=0) as file:
            file.seek(start * self.sample_bytes)
            room, done = tensor_bytes(part.reshape(-1)), 0
            while done < len(room):
                count = file.readinto(room[done:])
                if not count:
                    raise DataError(f"{self.path(self.current)} has been cut short: delete {self.folder}, start anew")
                done += count
        return part

    def write(self, start: int, states: Tensor) -> None:
        """Some samples, as the block leaves them."""
        states = states.detach().cpu()
        if self.memory is not None:
            self.memory[start : start + len(states)] = states
        with self.path(1 - self.current).open("r+b", buffering=0) as file:
            file.seek(start * self.sample_bytes)
            rest = tensor_bytes(states.reshape(-1))
            while rest:
                rest = rest[file.write(rest) :]

    def turn(self) -> None:
        """The block is through: what it wrote is what the next one reads."""
        self.current = 1 - self.current

    def resume(self, current: int) -> None:
        """Go on with one of the two copies.

        Raises:
            DataError: it is not whole.
        """
        self.current = current
        if self.path(current).stat().st_size != self.shape[0] * self.sample_bytes:
            raise DataError(f"{self.path(current)} is not whole")
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
    """Collect what `calibrate` collects, one block in memory at a time.

    Args:
        decoder: the model.
        calibration: the tokens.
        folder: where the hidden states are kept between blocks; a pass that was stopped is found there, and when all
            is done the folder goes.
        key: what the pass depends on besides `tokens_a_batch`; another's pass is not gone on with.
        in_memory: keep hidden states in memory as well as in files.
        tokens_a_batch: how many tokens go through at once.
        progress: called with the number of samples done, each counting in parts as blocks are through.
        note: told where a pass that was stopped is gone on with.

    Raises:
        NonFiniteValue: naming the module in which NaN or infinity arose.
        DiskFull: no room for the hidden states, found before anything is computed where possible.
        InvalidRequest: another process is at the same calibration.
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
    with report_os_errors(folder), locked(folder, "calibration", "wait until it is done; what it finds is kept"):
        done, found = _resumed(folder, key, states)
        if found is None:
            (folder / STATE).unlink(missing_ok=True)  # what it says is no longer true once hidden states are written
            require_space(folder, 2 * samples * states.sample_bytes)
            states.begin()
            start = 0
            for entered in _entered(decoder, calibration, _samples_a_batch(calibration, tokens_a_batch)):
                states.write(start, entered)
                start += len(entered)
            states.turn()
            found = Collector(decoder).statistics(calibration)
        elif note is not None:
            note(f"calibration goes on behind block {done} of {blocks}, where it was stopped before")
        for block in range(done, blocks):
            states.begin()
            collector = Collector(decoder)
            for through in _run_block(decoder, calibration, states, collector, block, tokens_a_batch):
                if progress is not None:
                    progress(int((block * samples + through) / blocks))
            found = found.with_block(block, collector.statistics(calibration))
            states.turn()
            found.save(folder / STATISTICS)
            state = {"key": key, "blocks": block + 1, "current": states.current}
            write_text(folder / STATE, json.dumps(state) + "\n")
        shutil.rmtree(folder)
    return found


def require_streaming_folder(folder: Path) -> None:
    """Refuse a folder for hidden states that holds something else: it is removed when the pass is done.

    Raises:
        OutputExists: naming what it holds.
        InvalidRequest: its place cannot come to be.
    """
    require_output_folder(folder, True, _foreign, "the hidden states of a calibration that was stopped")


def _foreign(folder: Path) -> str | None:
    """Names what in a folder no pass has written; None where there is nothing."""
    known = (LOCK, STATE, STATISTICS, "hidden-0.bin", "hidden-1.bin")
    for path in sorted(folder.iterdir()):
        temporary = path.name.startswith((f".{STATE}-", f".{STATISTICS}-"))
        if not (path.name in known or temporary) or path.is_symlink() or not path.is_file():
            return f"such as {path.name}"
    return None


def _samples_a_batch(calibration: CalibrationSet, tokens_a_batch: int) -> int:
    return max(1, tokens_a_batch // calibration.sequence_length)


def _entered(decoder: StreamedDecoder, calibration: CalibrationSet, step: int) -> Iterator[Tensor]:
    """What the first block is given, some samples after the other; those of images in batches as in the one pass."""
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
    """Send every sample through a block; yields how many are through."""
    samples = states.shape[0]
    step = _samples_a_batch(calibration, tokens_a_batch)
    with decoder.loaded(block) as module, collector.attached([block]):
        for start in range(0, samples, step):
            stop = min(start + step, samples)
            mask = calibration.mask_of(start, stop)
            collector.mask = None if mask is None else mask.to(decoder.device)
            given = states.read(start, stop).to(decoder.device)
            left = module(given, **decoder.given(given, collector.mask)[block])
            states.write(start, left)
            counted = given.shape[0] * given.shape[1] if mask is None else int(mask.sum())
            del given, left
            collector.join(counted)
            yield stop


def _resumed(folder: Path, key: str, states: HiddenStates) -> tuple[int, ActivationStatistics | None]:
    """Blocks that an earlier pass has done, and its statistics of them; none where there was no such pass."""
    try:
        state = read_json_object(folder / STATE)
        if state["key"] != key:
            return 0, None
        done, found = int(state["blocks"]), ActivationStatistics.load(folder / STATISTICS)
        states.resume(int(state["current"]))
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return 0, None
    return done, found
