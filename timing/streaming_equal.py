"""Check that block-by-block calibration is bit-identical to calibration in memory.

`python timing/streaming_equal.py --blocks 2` uses blocks of Llama-3-8B's exact shapes: 1.5 billion parameters with
embedding and head, and 6 GB of memory. Without options, the model is small.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from big_checkpoint import LLAMA_3_8B, SMALL, write_checkpoint

from prunelab.calibration import ActivationStatistics, CalibrationSet, calibrate
from prunelab.calibration.streaming import calibrate_streaming
from prunelab.cli.terminal import quieten
from prunelab.models.loading import load_model
from prunelab.models.streaming.model import open_streamed

SAMPLES, TOKENS = 4, 64


def numbers(statistics: ActivationStatistics) -> list[torch.Tensor]:
    """All collected statistics."""
    moments = [*statistics.attention, *statistics.mlp]
    return [statistics.cosine_sum, *(m.mean for m in moments), *(m.deviations for m in moments)]


def main() -> None:
    """Print the comparison for float32 and bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, help="of Llama-3-8B's shapes")
    blocks = parser.parse_args().blocks
    quieten()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        write_checkpoint(folder, LLAMA_3_8B.with_blocks(blocks) if blocks else SMALL)
        ids = torch.randint(SMALL.vocabulary, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(0))
        for dtype in ("float32", "bfloat16"):
            streamed = open_streamed(str(folder), dtype=dtype, device="cpu").decoder
            streamed_numbers = numbers(calibrate_streaming(streamed, CalibrationSet(ids), Path(place) / "work", "key"))
            dense_decoder = load_model(str(folder), dtype=dtype, device="cpu").decoder
            expected = numbers(calibrate(dense_decoder, CalibrationSet(ids)))
            same = all(
                torch.equal(collected, reference)
                for collected, reference in zip(streamed_numbers, expected, strict=True)
            )
            print(
                f"{dtype}, {dense_decoder.parameters:,} parameters: {'equal to the bit' if same else 'DIFFERENT'}",
                flush=True,
            )
            del dense_decoder, expected


if __name__ == "__main__":
    main()
