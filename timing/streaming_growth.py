"""Time and memory of block-by-block calibration, by model size and by number of tokens.

`python timing/streaming_growth.py --blocks 2 4 6 --samples 2 4 6` is a small test; the default uses
blocks of 0.8 million weights: four sizes at 4,096 tokens, and four numbers of tokens at two blocks, large enough that
the hidden states in memory outweigh a batch. Memory is the increase during the pass.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from big_checkpoint import Shapes, write_checkpoint
from common import keep

BLOCKS, SAMPLES, TOKENS = (8, 16, 24, 32), (256, 512, 768, 1024), 256
FEW_BLOCKS, FEW_SAMPLES = 2, 16
SHAPES = Shapes(
    hidden=256, channels=768, heads=8, key_value_heads=4, head_dim=32, vocabulary=4096, blocks=0, context=512
)


def calibrate_once(folder: Path, samples: int) -> tuple[float, float]:
    """Seconds and peak memory in bytes, beyond the libraries' memory, of a pass in a separate process."""
    code = Path(__file__).with_name("streaming_pass.py")
    ran = subprocess.run(
        [sys.executable, code, folder, str(samples), str(TOKENS)], check=True, capture_output=True, text=True
    )
    seconds, peak = ran.stdout.split()[-2:]
    return float(seconds), float(peak)


def line(xs: list[float], ys: list[float]) -> dict[str, float]:
    """A linear fit of the measurements and its quality.

    Returns:
        `start` and `slope`; `off`, the largest deviation as a share of the largest value; `r2`, the share of explained
        variance, which is not informative if the values hardly vary.
    """
    slope, start = np.polyfit(xs, ys, 1)
    rest = np.array(ys) - (start + slope * np.array(xs))
    varied = float(np.var(ys) * len(ys))
    return {
        "start": float(start),
        "slope": float(slope),
        "off": float(abs(rest).max() / max(ys)),
        "r2": 1 - float((rest**2).sum()) / varied if varied else 1.0,
    }


def main() -> None:
    """Print the measurements and their fits: all sizes at few tokens, all numbers of tokens at a small size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", nargs="+", type=int, default=BLOCKS, help="at least two sizes")
    parser.add_argument("--samples", nargs="+", type=int, default=SAMPLES, help=f"of {TOKENS} tokens each")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds, of which the median counts")
    parser.add_argument("--keep", type=Path, help="file for the results")
    asked = parser.parse_args()
    kept: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folders = {blocks: Path(place) / f"{blocks}" for blocks in {FEW_BLOCKS, *asked.blocks}}
        for blocks, folder in folders.items():
            write_checkpoint(folder, SHAPES.with_blocks(blocks), dtype="float32")
        calibrate_once(folders[FEW_BLOCKS], 1)
        for title, cases in (
            ("blocks", [(float(b), folders[b], FEW_SAMPLES) for b in asked.blocks]),
            ("tokens", [(float(s * TOKENS), folders[FEW_BLOCKS], s) for s in asked.samples]),
        ):
            seen = [[calibrate_once(folder, samples) for _, folder, samples in cases] for _ in range(asked.rounds)]
            sizes = [case[0] for case in cases]
            for index, (what, unit) in enumerate((("seconds", 1.0), ("MB", 1e6))):
                runs = [[one[case][index] / unit for one in seen] for case in range(len(cases))]
                found = [median(one) for one in runs]
                for size, one in zip(sizes, runs, strict=True):
                    print(
                        f"{size:.0f} {title}: {median(one):.3g} {what} ({min(one):.3g} to {max(one):.3g})", flush=True
                    )
                drawn = line(sizes, found)
                kept[f"{what} by {title}"] = {"runs": dict(zip(sizes, runs, strict=True)), "line": drawn}
                print(
                    "    {} by {}: {start:.3g} + {slope:.3g} a unit; off the line by at most {off:.1%} of the largest, "
                    "R^2 {r2:.4f}".format(what, title, **drawn)
                )
    keep(asked.keep, kept)


if __name__ == "__main__":
    main()
