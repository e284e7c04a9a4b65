"""`prunelab compare`: two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table as RichTable

from prunelab.cli.results import RunFolder
from prunelab.cli.terminal import app, out


@app.command()
def compare(run_a: RunFolder, run_b: RunFolder) -> None:
    """Print how two runs differ: tested pair by pair on the same samples, else by standard errors."""
    from prunelab.studies.compare import compare_runs, label_of
    from prunelab.studies.run import load_run

    found = compare_runs(load_run(run_a), load_run(run_b))
    table = RichTable("cell", "benchmark", "metric", "A", "B", "B - A", "p", "how")
    for one in found.both:
        a, b = one.first, one.second
        shots = "" if a.shots is None else f" {a.shots}-shot"
        p = "" if one.p is None else f"{one.p:.2g}"
        row = (label_of(a), f"{a.benchmark}{shots}", a.metric, f"{a.value:.6g}", f"{b.value:.6g}", _change(one), p)
        table.add_row(*row, _how(one))
    if found.both:
        out.print(table)
    else:
        out.print("the runs have no benchmark of any cell in common")
    for folder, only in ((run_a, found.only_first), (run_b, found.only_second)):
        for cell, names in _by_cell(only).items():
            out.print(f"only in {folder}: {cell}: {', '.join(names)}")


def _change(one: Any) -> str:
    if one.paired is not None:
        low, high = one.paired.interval
        return f"{one.difference:+.4g} ({low:+.4g} to {high:+.4g})"
    error = one.standard_error
    return f"{one.difference:+.4g}" + ("" if error is None else f" ± {error:.2g}")


def _how(one: Any) -> str:
    """The test, or why there is none; and what was set differently."""
    if one.paired is not None:
        how = f"{one.paired.test}, n = {one.paired.n}, p after Holm"
    elif one.standard_error is None:
        how = f"difference ({one.why_unpaired})"
    else:
        how = f"standard errors ({one.why_unpaired})"
    return "; ".join([how, *one.settings])


def _by_cell(measurements: Sequence[Any]) -> dict[str, list[str]]:
    from prunelab.studies.compare import label_of

    cells: dict[str, list[str]] = {}
    for m in measurements:
        cells.setdefault(label_of(m), []).append(m.benchmark)
    return cells
