"""The Typer application, its consoles, and helpers shared by the commands."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prunelab.errors.text import one_line
from prunelab.io.terminal import Terminal, accept_any_character, labelled

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SECONDS_A_LINE = 60


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"prunelab {version('prunelab')}")
        raise typer.Exit


@app.callback()
def _for_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Training-free structured pruning of language models, with an evaluation that states what was lost."""


# A pipe has no width, so tables get a fixed one that is wide enough.
out = Terminal(width=None if sys.stdout.isatty() else 160)
err = Terminal(stderr=True)


def figure(value: float) -> str:
    """Format a figure with six significant digits, or a whole number, such as a size in bytes, in full."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def command() -> str:
    """The command being run, quoted for a shell."""
    return shlex.join(["prunelab", *sys.argv[1:]])


QUIET = {
    "DATASETS_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Variables that silence the libraries; each library reads them when it is imported."""


def quieten() -> None:
    """Silence the progress bars and log messages of the libraries, without importing them."""
    accept_any_character()
    os.environ.update(QUIET)
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.disable_progress_bar()
        sys.modules["transformers"].logging.set_verbosity_error()
    # They also raise the errors that they log.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    warnings.showwarning = _show_warning


def _show_warning(message: Any, category: Any, *rest: Any, **more: Any) -> None:
    if category is UserWarning:
        err.print(labelled("warning:", "yellow", message))


@contextmanager
def bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar on a terminal; elsewhere a line every minute."""
    if not err.is_terminal:
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(one_line(what), total=total)
        yield lambda done, of=total: progress.update(task, completed=done, total=of)


def _lines(what: str, total: int) -> Callable[..., None]:
    start = last_line = time.monotonic()

    def update(done: int, of: int = total) -> None:
        nonlocal last_line
        now = time.monotonic()
        if now - last_line >= SECONDS_A_LINE and 0 < done < of:
            last_line = now
            err.print(f"{what}: {done:,} of {of:,} in {(now - start) / 60:.0f} min")

    return update
