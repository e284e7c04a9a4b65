"""`prunelab fetch`: download data sets for machines without internet access."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunelab.cli.options import SuiteNames
from prunelab.cli.terminal import app, out
from prunelab.errors import InvalidRequest


@app.command()
def fetch(
    to: Annotated[Path, typer.Option(help="folder to download to; pass it to other commands as --datasets-root")],
    suite: SuiteNames = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="benchmark whose data to download; repeatable")] = None,
    calibration: Annotated[
        list[str] | None, typer.Option(help="calibration corpus to download, wikitext2 or c4; repeatable")
    ] = None,
) -> None:
    """Download the data of benchmarks and calibration corpora, for machines without internet access."""
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
    for folder in fetch_sources([source for item in chosen for source in item.sources()] + corpora, to):
        out.print(f"fetched {folder}")
    for item in chosen:
        item.fetch(to)
    out.print(f"next, on the machine without internet access: prunelab evaluate MODEL --datasets-root {to}")
