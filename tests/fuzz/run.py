"""Fuzz everything that prunelab reads: `python tests/fuzz/run.py --inputs 10000`.

The same seed gives the same inputs. Counts by kind and outcome are printed, and what is neither accepted nor refused in
one line, grouped by place; the exit code is 1 where there is any.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import datasets  # noqa: E402
from fuzz_materials import Materials  # noqa: E402
from fuzz_targets import TARGETS  # noqa: E402
from fuzz_worker import Findings, fuzz, inputs  # noqa: E402

from prunelab.cli.terminal import quieten  # noqa: E402


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(TARGETS), help="repeatable; all by default")
    parser.add_argument("--number", type=int, help="only this one input of the kind")
    given = parser.parse_args()
    wanted = inputs(given.inputs, given.kind or ())
    if given.number is not None:
        wanted = [(kind, given.number) for kind in given.kind or TARGETS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["PRUNELAB_CACHE"] = str(folder / "cache")
        datasets.config.HF_DATASETS_CACHE = folder / "cache" / "datasets"
        quieten()
        materials = Materials(folder / "materials")
        materials.make()
        findings = fuzz(materials, folder, wanted, given.seed, say=lambda line: print(line, flush=True))
    print(table(findings))
    return 1 if findings.bad else 0


def table(findings: Findings) -> str:
    """Counts by kind and outcome, then the bad ones by place."""
    outcomes = list(dict.fromkeys(("accepted", "refused", *(o for c in findings.counts.values() for o in c))))
    lines = ["  ".join([f"{'kind':22}", *(f"{outcome:>13}" for outcome in outcomes)])]
    total: Counter[str] = Counter()
    for kind, counts in findings.counts.items():
        total += counts
        lines.append("  ".join([f"{kind:22}", *(f"{counts[outcome]:13}" for outcome in outcomes)]))
    lines.append("  ".join([f"{'all':22}", *(f"{total[outcome]:13}" for outcome in outcomes)]))
    seconds, kind, number = findings.slowest
    lines.append(f"slowest: {seconds:.1f} s of processor time, {kind} {number}")
    places = Counter((row["kind"], row["outcome"], row["detail"].partition(": ")[0]) for row in findings.bad)
    for (kind, outcome, place), count in places.most_common():
        first = next(r for r in findings.bad if (r["kind"], r["detail"].partition(": ")[0]) == (kind, place))
        example = f"--kind '{kind}' --number {first['number']}"
        lines.append(f"{count:5}  {kind}, {outcome}: {first['detail']} (first: {example})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
