"""Cost of every method of the arena: calibration, planning and pruning, as a multiple of one calibration pass.

Each method is timed alone, alternating with the plain pass over the same tokens; the savings of a study, which shares
searches among ratios and methods, are not included. Methods that need second moments collect them with the statistics;
the script also prints the cost of least squares if memory does not allow this, and the cost of a further cut. Seconds
are the multiple times the fastest of five passes. All times are processor time, which other load affects less.

    python timing/methods_cost.py --out runs/arena-times.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

import torch
from common import ratio, seconds

from prunelab.calibration import ActivationStatistics, calibrate
from prunelab.calibration.cache import draw_for
from prunelab.io.atomic_write import write_text
from prunelab.models.loading import load_model
from prunelab.pocket.data import pocket_data
from prunelab.pruning.apply import PruningOptions, make_pruning_plan, needs_calibration, needs_moments, pruned_model
from prunelab.pruning.methods import methods
from prunelab.studies.config import read_config, study_config

ARENA = Path(__file__).parents[1] / "configs" / "arena.yaml"


def main() -> None:
    """Print one line per method, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket-llama")
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--method", action="append", help="repeatable; by default all methods of the arena")
    parser.add_argument("--out", type=Path, help="a CSV file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = study_config(read_config(ARENA), "arena", ARENA)
    model = load_model(given.model, device="cpu", dtype=config.dtype)
    model.fingerprint  # noqa: B018  (the weights are hashed once per model, not per plan)
    calibration = draw_for(model, config.calibration.options(0), pocket_data())

    def collect(moments: bool = False) -> ActivationStatistics:
        return calibrate(model.decoder, calibration, moments=moments)

    def passes(name: str, statistics_of: Callable[[], ActivationStatistics | None]) -> tuple[float, float]:
        def prune() -> None:
            statistics = statistics_of()
            plan = make_pruning_plan(model, name, given.ratio, statistics=statistics, calibration=calibration)
            pruned_model(model, plan, statistics, calibration)

        return ratio(prune, collect, given.rounds, process_time)

    a_pass = min(seconds(collect, process_time) for _ in range(5))
    print(f"{given.model} at {given.ratio:.0%}, {calibration.token_ids.numel():,} calibration tokens, one thread")
    rows = ["method,passes,spread,seconds"]
    for name in given.method or config.methods:
        options = PruningOptions()
        moments, calibrates = needs_moments(name, options), needs_calibration(name, options)
        multiple, spread = passes(name, partial(collect, moments) if calibrates else lambda: None)
        print(f"{name}: {multiple:.1f} (± {spread:.1f}) passes, {multiple * a_pass:.1f} s", flush=True)
        rows.append(f"{name},{multiple:.2f},{spread:.2f},{multiple * a_pass:.2f}")
        if moments and not methods[name].needs_loss:  # negligible compared with a search
            held, plain = collect(moments=True), collect()
            for what, statistics_of in (
                ("second moments in a separate pass", collect),
                ("a further cut, second moments in memory", lambda held=held: held),
                ("a further cut, second moments not in memory", lambda plain=plain: plain),
            ):
                multiple, spread = passes(name, statistics_of)
                print(f"{name}, {what}: {multiple:.2f} (± {spread:.2f}) passes", flush=True)
    if given.out is not None:
        write_text(given.out, "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
