"""The application, where it prints, and what is common to its commands."""

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


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"prunelab {version('prunelab')}")
        raise typer.Exit


@app.callback()
def _for_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="say the version and stop")
    ] = False,
) -> None:
    """Prune a language model without training it, and see honestly what was lost."""


# A pipe has no width: tables get one that holds them.
out = Terminal(width=None if sys.stdout.isatty() else 160)
err = Terminal(stderr=True)


def figure(value: float) -> str:
    """A figure with six digits; a whole number, such as one of bytes, with all that it has."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def command() -> str:
    """The command that is being run, as one would type it."""
    return shlex.join(["prunelab", *sys.argv[1:]])


QUIET = {
    "DATASETS_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What keeps the libraries below from printing; each library reads its variables when it is imported."""


def quieten() -> None:
    """Leave the terminal to our own lines: no bars and no advice from the libraries below, which are not imported."""
    accept_any_character()
    os.environ.update(QUIET)
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.disable_progress_bar()
        sys.modules["transformers"].logging.set_verbosity_error()
    # What they log as an error they raise as well.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    warnings.showwarning = _show_warning


def _show_warning(message: Any, category: Any, *rest: Any, **more: Any) -> None:
    if category is UserWarning:
        err.print(labelled("warning:", "yellow", message))


@contextmanager
def bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar on a terminal; elsewhere, of what takes long, a line now and then."""
    if not err.is_terminal:
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(one_line(what), total=total)
        yield lambda done, of=total: progress.update(task, completed=done, total=of)


def _lines(what: str, total: int) -> Callable[..., None]:
    began = said = time.monotonic()

    def update(done: int, of: int = total) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= SECONDS_A_LINE and 0 < done < of:
            said = now
            err.print(f"{what}: {done:,} of {of:,} in {(now - began) / 60:.0f} min")

    return update
