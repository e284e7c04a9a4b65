"""Decoding speed of every cut of an arena's run, measured alternately with the dense model.

A study measures the cells one after another, and the speed of small models drifts more than pruning changes it. Here
the dense model and the cut alternately generate the same number of tokens on one thread, in processor time; each round
gives one ratio, and the median and half the interquartile range are written. Plans and statistics are from the first
draw of the run's folder; duplicate cuts are measured once.

    python timing/arena_speed.py runs/arena --out runs/arena-speeds.csv

Without a run's folder: `shortgpt` and `flap` at 20 % of pocket-llama.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import process_time

import torch
from common import middle

from prunelab.cli.terminal import quieten
from prunelab.evaluation.benchmarks.throughput import generate
from prunelab.inference.runtimes import TimedGeneration
from prunelab.io.atomic_write import write_text
from prunelab.models.loading import LanguageModel
from prunelab.pocket.data import data_root
from prunelab.studies.config import StudyConfig, read_config, study_config
from prunelab.studies.grid import cells_of
from prunelab.studies.model_entry import ModelEntry
from prunelab.studies.plans import ModelPlans
from prunelab.studies.run import load_run
from prunelab.studies.store import ResultsStore
from prunelab.studies.targets import EvaluationTargets

ARENA = Path(__file__).parents[1] / "configs" / "arena.yaml"
IN_LITTLE = {"models": ["pocket-llama"], "methods": ["shortgpt", "flap"], "ratios": [0.2]}
PROMPT, NEW = 8, 48


def main() -> None:
    """Print one line per cut, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=Path, nargs="?", help="a study's folder; by default the paper's methods on pocket-llama"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="a CSV file")
    given = parser.parse_args()
    quieten()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = given.run or Path(made)
        config = load_run(folder).config if given.run else study_config({**read_config(ARENA), **IN_LITTLE}, "arena")
        root = data_root(config.datasets_root, [entry.path for entry in config.models])
        config = config.model_copy(update={"datasets_root": root})
        rows = ["model,method,ratio,speed,spread"]
        for entry in config.models:
            rows += of_model(config, entry, ResultsStore(folder), given.rounds)
    if given.out is not None:
        write_text(given.out, "\n".join(rows) + "\n")


def of_model(config: StudyConfig, entry: ModelEntry, store: ResultsStore, rounds: int) -> list[str]:
    """One row per cut of one model."""
    subjects = EvaluationTargets(ModelPlans(config, entry, store, print))
    dense, *cuts = cells_of(config, entry)
    dense_model = subjects.of(dense).make()
    measured: dict[str | None, tuple[float, float]] = {}
    rows = []
    for cell in cuts:
        if cell.cut is None or cell.cut.seed not in (None, config.seeds[0]):
            continue
        subject = subjects.of(cell)
        if subject.cell.plan not in measured:
            measured[subject.cell.plan] = times_as_fast(dense_model, subject.make(), rounds)
        speed, spread = measured[subject.cell.plan]
        print(f"{subject.cell.label}: {speed:.3f} (± {spread:.3f}) times as fast", flush=True)
        rows.append(f"{subject.cell.model},{cell.cut.method},{cell.cut.ratio:g},{speed:.4f},{spread:.4f}")
    return rows


def times_as_fast(dense_model: LanguageModel, cut: LanguageModel, rounds: int) -> tuple[float, float]:
    """The cut's decoding speed relative to the dense model; the first round is a warm-up."""
    ids = torch.zeros((1, PROMPT), dtype=torch.long)
    runs = [TimedGeneration(model, "eager", PROMPT + NEW) for model in (dense_model, cut)]

    def seconds(run: TimedGeneration) -> float:
        start = process_time()
        generate(run, ids, NEW)
        return process_time() - start

    pairs = [[seconds(run) for run in runs] for _ in range(rounds + 1)][1:]
    return middle([dense / pruned for dense, pruned in pairs])


if __name__ == "__main__":
    main()
