"""What every method of the arena costs: planning and cutting, as a multiple of one calibration pass.

Each method is timed by itself, in turn with the pass over the same tokens, nothing shared with others: what a study
saves by sharing searches among its ratios and methods is not in these figures. The pass itself is counted for every
method that needs it, as one. Seconds are the multiple times the quickest of five passes.

    python timing/methods_cost.py --out runs/arena-times.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import ratio, seconds

from prunelab.calibration import ActivationStatistics, calibrate
from prunelab.config import read_config, study_config
from prunelab.files import write_text
from prunelab.loading import load_model
from prunelab.model_statistics import draw_for
from prunelab.pocket.data import pocket_data
from prunelab.prune import PruningOptions, make_pruning_plan, needs_calibration, pruned_model

ARENA = Path(__file__).parents[1] / "configs" / "arena.yaml"


def main() -> None:
    """Print a line a method, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket-llama")
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a CSV file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = study_config(read_config(ARENA), "arena", ARENA)
    model = load_model(given.model, device="cpu", dtype=config.dtype)
    model.fingerprint  # noqa: B018  (hashing the weights is paid once a model, not once a plan)
    calibration = draw_for(model, config.calibration.options(0), pocket_data())

    def collect() -> ActivationStatistics:
        return calibrate(model.decoder, calibration)

    statistics = collect()
    a_pass = min(seconds(collect) for _ in range(5))
    print(f"{given.model} at {given.ratio:.0%}, {calibration.token_ids.numel():,} calibration tokens, one thread")
    rows = ["method,passes,spread,seconds"]
    for name in config.methods:
        options = PruningOptions()
        calibrates = needs_calibration(name, options)

        def prune(name: str = name, options: PruningOptions = options) -> None:
            plan = make_pruning_plan(
                model, name, given.ratio, statistics=statistics, calibration=calibration, options=options
            )
            pruned_model(model, plan, statistics, calibration)

        passes, spread = ratio(prune, collect, given.rounds)
        passes += calibrates
        print(f"{name}: {passes:.1f} (± {spread:.1f}) passes, {passes * a_pass:.1f} s", flush=True)
        rows.append(f"{name},{passes:.2f},{spread:.2f},{passes * a_pass:.2f}")
    if given.out is not None:
        write_text(given.out, "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
