"""`prunelab results`: print the figures of a run as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from prunelab.cli.terminal import app, err, figure, out
from prunelab.io.terminal import labelled

RunFolder = Annotated[Path, typer.Argument(help="folder written by `prunelab study --out`")]


@app.command()
def results(
    run: RunFolder,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="show all figures of this benchmark except single subjects; repeatable")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="print every figure as CSV")] = False,
) -> None:
    """Print the results of a study."""
    from prunelab.errors import UnknownName
    from prunelab.reports.tables import main_table
    from prunelab.studies.run import load_run
    from prunelab.studies.store import to_frame

    loaded_run = load_run(run)
    names = list(dict.fromkeys(m.benchmark for m in loaded_run.measurements))
    for name in benchmark or []:
        if name not in names:
            raise UnknownName("benchmark of this run", name, names)
    chosen = [m for m in loaded_run.measurements if not benchmark or m.benchmark in benchmark]
    if csv:
        to_frame(chosen).to_csv(sys.stdout, index=False)
        return
    if benchmark:
        for name in dict.fromkeys(benchmark):
            out.print(_figures(name, [m for m in chosen if m.benchmark == name]))
    else:
        table = main_table(chosen, loaded_run.differences)
        shown = RichTable(*table.columns)
        for row in table.rows:
            shown.add_row(*row)
        out.print(shown)
    for failure in loaded_run.failures:
        reason = (failure.error.strip().splitlines() or ["no reason recorded"])[-1]
        err.print(labelled("failed:", "red", f"{failure.cell}: {reason}"))


def _figures(name: str, measurements: Sequence[Any]) -> RichTable:
    """Table of one benchmark: one row per figure, cells in the order of the grid."""
    from prunelab.studies.compare import label_of

    table = RichTable("cell", "achieved", "shots", "metric", "value", "± standard error", "n", title=name)
    for m in measurements:
        if "/" not in m.group:
            error = "" if m.standard_error is None else f"{m.standard_error:.3g}"
            metric = f"{m.metric} {m.group}".strip()
            shots = "" if m.shots is None else str(m.shots)
            table.add_row(label_of(m), f"{m.achieved_ratio:.1%}", shots, metric, figure(m.value), error, str(m.n))
    return table
