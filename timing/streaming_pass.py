"""One block-by-block calibration in a separate process: prints processor seconds and peak memory in bytes.

`python timing/streaming_pass.py FOLDER SAMPLES TOKENS`; without arguments, a small generated checkpoint.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from big_checkpoint import SMALL, write_checkpoint

from prunelab.calibration import CalibrationSet
from prunelab.calibration.streaming import calibrate_streaming
from prunelab.evaluation.benchmarks.throughput import peak_memory, reset_peak_memory
from prunelab.models.memory import held
from prunelab.models.streaming.model import open_streamed

CPU = torch.device("cpu")


def measure(folder: Path, samples: int, tokens: int) -> tuple[float, int]:
    """Processor seconds, and the increase of memory in bytes."""
    torch.set_num_threads(1)
    model = open_streamed(str(folder), device="cpu")
    vocabulary = model.model.get_input_embeddings().num_embeddings
    ids = torch.randint(vocabulary, (samples, tokens), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as work:
        before = held()
        reset_peak_memory(CPU)
        start = time.process_time()
        calibrate_streaming(model.decoder, CalibrationSet(ids), Path(work) / "work", "timing")
        seconds = time.process_time() - start
    return seconds, (peak_memory(CPU) or 0) - before


def main() -> None:
    """Print both."""
    if len(sys.argv) == 4:
        print(*measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "m", SMALL, dtype="float32")
        seconds, peak = measure(Path(folder) / "m", 4, 256)
        print(f"{seconds:.2f} s of the processor, {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
