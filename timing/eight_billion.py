"""Llama-3-8B's exact shapes in random weights, calibrated block by block and pruned to 20 % by `flap` and `shortgpt`.

`python timing/eight_billion.py --blocks 32 --samples 64` is the whole of it: 16 GB on disk, deleted afterwards, about
40 minutes of two cores. Without options it is one block and a few samples, for the ratios alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from big_checkpoint import LLAMA_3_8B, write_checkpoint
from common import report

from prunelab.benchmarks.throughput import peak_memory, reset_peak_memory
from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.calibration.streaming import block_arguments
from prunelab.checkpoint.streaming import save_streamed
from prunelab.memory import held
from prunelab.prune import calibrated, make_pruning_plan
from prunelab.streamed import StreamedModel, open_streamed

CPU = torch.device("cpu")
BARE_SAMPLES = 8


@torch.inference_mode()
def bare_seconds(model: StreamedModel, tokens: int) -> float:
    """Of one block for eight samples: what the arithmetic itself takes, weights in place and nothing collected."""
    decoder = model.decoder
    states = torch.randn(BARE_SAMPLES, tokens, decoder.shapes[0].hidden).to(model.model.dtype)
    with decoder.loaded(0) as block:
        given = block_arguments(decoder, states, None)[0]
        block(states[:1], **given)
        start = time.perf_counter()
        block(states, **given)
        return time.perf_counter() - start


def calibrate_measured(
    model: StreamedModel, calibration: CalibrationSet, place: Path, memory: int
) -> tuple[ActivationStatistics, float]:
    """Statistics and seconds."""
    start = time.perf_counter()
    found = calibrated(model, calibration, place / "statistics.safetensors", memory=memory)
    return found, time.perf_counter() - start


def main() -> None:
    """Print memory, and times against what must be done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--samples", type=int, default=BARE_SAMPLES)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--memory", type=float, default=4.0, help="GB")
    parser.add_argument("--place", type=Path, help="folder for the files; the system's for temporary ones by default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.place) as name:
        measure(Path(name), asked.blocks, asked.samples, asked.tokens, int(asked.memory * 1e9))


def measure(place: Path, blocks: int, samples: int, tokens: int, memory: int) -> None:
    """All of it in one folder."""
    write_checkpoint(place / "base", LLAMA_3_8B.with_blocks(blocks))
    size = sum(path.stat().st_size for path in (place / "base").iterdir())
    model = open_streamed(str(place / "base"), device="cpu")
    print(f"{blocks} blocks, {size / 1e9:.3g} GB, {samples} x {tokens} tokens, {torch.get_num_threads()} threads")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(LLAMA_3_8B.vocabulary, (samples, tokens), generator=generator)
    print(f"{held() / 2**30:.2f} GiB held before anything is read")
    start = time.perf_counter()
    model.fingerprint  # noqa: B018  (it is read for here)
    print(f"fingerprint: {time.perf_counter() - start:.1f} s")
    reset_peak_memory(CPU)
    before = bare_seconds(model, tokens)
    statistics, seconds = calibrate_measured(model, CalibrationSet(ids), place, memory)
    bare = (before + bare_seconds(model, tokens)) / 2 * blocks * samples / BARE_SAMPLES
    report(f"calibration, {seconds:.1f} s / the bare forward's arithmetic", seconds / bare, 0.0, target=1.3)
    for method in ("flap", "shortgpt") if blocks > 1 else ("flap",):
        prune_measured(model, method, statistics, place, 1 / blocks if method == "shortgpt" and blocks < 5 else 0.2)
    report("GiB at the peak", (peak_memory(CPU) or 0) / 2**30, 0.0, target=4.0)


def prune_measured(
    model: StreamedModel, method: str, statistics: ActivationStatistics, place: Path, share: float
) -> None:
    """Plan and write, against copying the checkpoint that was cut."""
    out = place / method
    os.sync()
    start = time.perf_counter()
    plan = make_pruning_plan(model, method, share, statistics=statistics)
    planned = time.perf_counter()
    save_streamed(model, plan, statistics, out)
    written = time.perf_counter()
    os.sync()
    copying = time.perf_counter()
    for path in (place / "base").glob("*.safetensors"):
        shutil.copyfile(path, place / "copy")
        (place / "copy").unlink()
    copied = time.perf_counter() - copying
    print(f"{method}: planned in {planned - start:.1f} s, {plan.achieved_ratio:.1%} of the blocks' weights removed")
    report(
        f"{method}: writing, {written - planned:.1f} s / copying the checkpoint", (written - planned) / copied, 0.0, 2
    )
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
