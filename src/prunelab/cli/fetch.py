"""`prunelab fetch`: data for machines without internet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.options import SuiteNames
from prunelab.cli.terminal import app, out
from prunelab.errors import InvalidRequest


@app.command()
def fetch(
    to: Annotated[Path, typer.Option(help="the folder to fill, for --datasets-root")],
    suite: SuiteNames = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="repeatable")] = None,
    calibration: Annotated[list[str] | None, typer.Option(help="wikitext2 or c4; repeatable")] = None,
) -> None:
    """Bring benchmarks' data into a folder, for machines without internet."""
    from prunelab.calibration.corpus import find_corpus
    from prunelab.evaluation.benchmarks import find_benchmark
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.io.datasets import fetch_sources
    from prunelab.io.paths import ensure_writable

    ensure_writable(to / "README.md")
    chosen = [find_benchmark(name) for name in expand(suite or [], benchmark or [])[0]]
    corpora = [find_corpus(name) for name in calibration or []]
    if not chosen and not corpora:
        raise InvalidRequest("nothing to fetch: give --suite NAME, --benchmark NAME or --calibration NAME")
    for folder in fetch_sources([source for one in chosen for source in one.sources()] + corpora, to):
        out.print(f"fetched {folder}")
    for one in chosen:
        one.fetch(to)
    out.print(f"next, where there is no internet: prunelab evaluate MODEL --datasets-root {to}")
