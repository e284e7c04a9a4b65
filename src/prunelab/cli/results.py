"""`prunelab results`: a run's figures as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from prunelab.cli.terminal import app, err, figure, out
from prunelab.io.terminal import labelled

RunFolder = Annotated[Path, typer.Argument(help="a run's folder")]


@app.command()
def results(
    run: RunFolder,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="repeatable; all figures of it, single subjects left out")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="every figure as CSV")] = False,
) -> None:
    """Print what a study found."""
    from prunelab.errors import UnknownName
    from prunelab.reports.tables import main_table
    from prunelab.studies.run import load_run
    from prunelab.studies.store import to_frame

    found = load_run(run)
    names = list(dict.fromkeys(m.benchmark for m in found.measurements))
    for name in benchmark or []:
        if name not in names:
            raise UnknownName("benchmark of this run", name, names)
    chosen = [m for m in found.measurements if not benchmark or m.benchmark in benchmark]
    if csv:
        to_frame(chosen).to_csv(sys.stdout, index=False)
        return
    if benchmark:
        for name in dict.fromkeys(benchmark):
            out.print(_figures(name, [m for m in chosen if m.benchmark == name]))
    else:
        table = main_table(chosen, found.differences)
        shown = RichTable(*table.columns)
        for row in table.rows:
            shown.add_row(*row)
        out.print(shown)
    for failure in found.failures:
        reason = (failure.error.strip().splitlines() or ["without a reason"])[-1]
        err.print(labelled("failed:", "red", f"{failure.cell}: {reason}"))


def _figures(name: str, measurements: Sequence[Any]) -> RichTable:
    """One benchmark: a row a figure, cells in the order of the grid."""
    from prunelab.studies.compare import label_of

    table = RichTable("cell", "achieved", "shots", "metric", "value", "± standard error", "n", title=name)
    for m in measurements:
        if "/" not in m.group:
            error = "" if m.standard_error is None else f"{m.standard_error:.3g}"
            metric = f"{m.metric} {m.group}".strip()
            shots = "" if m.shots is None else str(m.shots)
            table.add_row(label_of(m), f"{m.achieved_ratio:.1%}", shots, metric, figure(m.value), error, str(m.n))
    return table
