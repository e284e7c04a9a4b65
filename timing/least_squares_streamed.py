"""Time and memory of least-squares compensation on a streamed model, compared with its calibration.

`python timing/least_squares_streamed.py --large --samples 16` uses one block of Llama-3-8B's exact shapes, pruned by
20 % with `flap`; without `--large`, a small model. Times are processor seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from big_checkpoint import LLAMA_3_8B, SMALL, write_checkpoint

from prunelab.calibration import CalibrationSet
from prunelab.checkpoint.streamed_save import save_streamed
from prunelab.evaluation.benchmarks.throughput import peak_memory, reset_peak_memory
from prunelab.models.memory import held
from prunelab.models.streaming.model import open_streamed
from prunelab.pruning.apply import calibrated, make_pruning_plan

CPU = torch.device("cpu")


def main() -> None:
    """Print time and peak memory of calibration, and of pruning with each compensation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "base", LLAMA_3_8B.with_blocks(1) if given.large else SMALL)
        model = open_streamed(str(folder / "base"), device="cpu")
        vocabulary = model.model.get_input_embeddings().num_embeddings
        ids = torch.randint(vocabulary, (given.samples, given.tokens), generator=torch.Generator().manual_seed(0))
        calibration = CalibrationSet(ids)
        print(
            f"{len(model.decoder.shapes)} blocks, {model.decoder.parameters / 1e6:.0f} M parameters, "
            f"{ids.numel():,} tokens"
        )
        before = held()

        def clocked(what: str, start: float) -> None:
            seconds, peak = time.process_time() - start, (peak_memory(CPU) or 0) - before
            print(f"{what}: {seconds:.1f} s, {peak / 2**30:.2f} GiB", flush=True)
            reset_peak_memory(CPU)

        reset_peak_memory(CPU)
        start = time.process_time()
        statistics = calibrated(model, calibration, folder / "statistics.safetensors")
        clocked("calibrating", start)
        for method in ("flap", "flap+least_squares"):
            plan = make_pruning_plan(model, method, 0.2, statistics=statistics, calibration=calibration)
            start = time.process_time()
            save_streamed(model, plan, statistics, folder / method, calibration)
            clocked(f"writing the model pruned with {method}", start)


if __name__ == "__main__":
    main()
