"""`prunelab compare`: compare two runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table as RichTable

from prunelab.cli.results import RunFolder
from prunelab.cli.terminal import app, out


@app.command()
def compare(run_a: RunFolder, run_b: RunFolder) -> None:
    """Compare two runs: with a paired test if both used the same samples, otherwise by standard errors."""
    from prunelab.studies.compare import compare_runs, label_of
    from prunelab.studies.run import load_run

    comparison = compare_runs(load_run(run_a), load_run(run_b))
    table = RichTable("cell", "benchmark", "metric", "A", "B", "B - A", "p", "test")
    for difference in comparison.both:
        a, b = difference.first, difference.second
        shots = "" if a.shots is None else f" {a.shots}-shot"
        p = "" if difference.p is None else f"{difference.p:.2g}"
        row = (
            label_of(a),
            f"{a.benchmark}{shots}",
            a.metric,
            f"{a.value:.6g}",
            f"{b.value:.6g}",
            _change(difference),
            p,
        )
        table.add_row(*row, _how(difference))
    if comparison.both:
        out.print(table)
    else:
        out.print("the two runs have no benchmark of any cell in common")
    for folder, only in ((run_a, comparison.only_first), (run_b, comparison.only_second)):
        for cell, names in _by_cell(only).items():
            out.print(f"only in {folder}: {cell}: {', '.join(names)}")


def _change(difference: Any) -> str:
    if difference.paired is not None:
        low, high = difference.paired.interval
        return f"{difference.difference:+.4g} ({low:+.4g} to {high:+.4g})"
    error = difference.standard_error
    return f"{difference.difference:+.4g}" + ("" if error is None else f" ± {error:.2g}")


def _how(difference: Any) -> str:
    """The test, or the reason why there is none, and the settings that differ."""
    if difference.paired is not None:
        how = f"{difference.paired.test}, n = {difference.paired.n}, Holm-adjusted p"
    elif difference.standard_error is None:
        how = f"difference only ({difference.why_unpaired})"
    else:
        how = f"standard errors ({difference.why_unpaired})"
    return "; ".join([how, *difference.settings])


def _by_cell(measurements: Sequence[Any]) -> dict[str, list[str]]:
    from prunelab.studies.compare import label_of

    cells: dict[str, list[str]] = {}
    for m in measurements:
        cells.setdefault(label_of(m), []).append(m.benchmark)
    return cells
