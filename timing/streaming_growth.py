"""Calibration block by block: time and memory against the size of the model, and against the number of tokens.

`python timing/streaming_growth.py --blocks 2 4 6 --samples 2 4 6` tries it at a small size; without options it takes
blocks of 0.8 million weights each, four sizes at 4096 tokens and four amounts of tokens at 16 blocks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from big_checkpoint import Shapes, write_checkpoint

BLOCKS, SAMPLES, TOKENS = (8, 16, 24, 32), (16, 32, 48, 64), 256
SHAPES = Shapes(
    hidden=256, channels=768, heads=8, key_value_heads=4, head_dim=32, vocabulary=4096, blocks=0, context=512
)


def calibrate_once(folder: Path, samples: int) -> tuple[float, float]:
    """Seconds, and bytes at the peak beyond what the libraries take, of a pass in a process of its own."""
    code = Path(__file__).with_name("streaming_pass.py")
    ran = subprocess.run(
        [sys.executable, code, folder, str(samples), str(TOKENS)], check=True, capture_output=True, text=True
    )
    seconds, peak = ran.stdout.split()[-2:]
    return float(seconds), float(peak)


def straight(what: str, xs: list[float], ys: list[float]) -> None:
    """How far the figures are from the straight line through them, as a share of the largest."""
    slope, start = np.polyfit(xs, ys, 1)
    off = max(abs(start + slope * x - y) for x, y in zip(xs, ys, strict=True)) / max(ys)
    print(f"    {what}: {start:.3g} + {slope:.3g} a unit; off the line by at most {off:.1%} of the largest")


def main() -> None:
    """Print the figures and their lines: of every size at the first amount, of every amount at the second size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", nargs="+", type=int, default=BLOCKS, help="at least two sizes")
    parser.add_argument("--samples", nargs="+", type=int, default=SAMPLES, help=f"of {TOKENS} tokens each")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = {blocks: Path(place) / f"{blocks}" for blocks in asked.blocks}
        for blocks, folder in folders.items():
            write_checkpoint(folder, SHAPES.with_blocks(blocks), dtype="float32")
        calibrate_once(folders[asked.blocks[0]], 1)
        for title, cases in (
            ("blocks", [(float(b), folders[b], asked.samples[0]) for b in asked.blocks]),
            ("tokens", [(float(s * TOKENS), folders[asked.blocks[1]], s) for s in asked.samples]),
        ):
            found = [(size, *calibrate_once(folder, samples)) for size, folder, samples in cases]
            for size, seconds, peak in found:
                print(f"{size:.0f} {title}: {seconds:.2f} s of the processor, {peak / 1e6:.0f} MB", flush=True)
            straight(f"seconds by {title}", [f[0] for f in found], [f[1] for f in found])
            straight(f"MB by {title}", [f[0] for f in found], [f[2] / 1e6 for f in found])


if __name__ == "__main__":
    main()
