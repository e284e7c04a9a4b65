"""`prunelab list`: list methods, benchmarks, suites and model families."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.table import Table as RichTable

from prunelab.cli.terminal import app, out


@app.command(name="list")
def list_(
    what: Annotated[Literal["methods", "benchmarks", "suites", "families"], typer.Argument(help="what to list")],
) -> None:
    """List the available methods, benchmarks, suites or model families."""
    if what == "methods":
        from prunelab.pruning.methods import methods

        table = RichTable("method", "removes", "what it does", "source")
        for m in methods.values():
            table.add_row(m.name, m.strategy, m.summary, m.source)
    elif what == "benchmarks":
        from prunelab.evaluation.benchmarks import benchmarks, with_argument

        table = RichTable("benchmark", "what it measures", "primary metric", "chance", "shots")
        for b in benchmarks.values():
            chance, shots = ("" if x is None else f"{x:.3g}" for x in (b.chance, b.shots))
            table.add_row(b.name, b.title, b.primary, chance, shots)
        for form, kind in with_argument.items():
            table.add_row(form, kind.title, kind.primary, "" if kind.chance is None else f"{kind.chance:.3g}", "")
    elif what == "suites":
        from prunelab.evaluation.benchmarks.suites import suites

        table = RichTable("suite", "description", "limit", "benchmarks")
        for s in suites.values():
            table.add_row(s.name, s.title, "" if s.limit is None else str(s.limit), ", ".join(s.benchmarks))
    else:
        from prunelab.models.families import families

        table = RichTable("family", "architecture", "module path of the blocks")
        for f in families.values():
            table.add_row(f.name, f.stock_class, f"{f.decoder}.{f.blocks}")
    out.print(table)
