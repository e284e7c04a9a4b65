"""The command-line interface: one module per command, which parses options, calls the library and prints.

Only the standard library is imported before `main` runs, so that Ctrl-C is handled from the start.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPED = 130
"""Exit code after Ctrl-C: 128 plus the signal number."""
MESSAGE = "interrupted: completed work is kept"


def load_commands() -> Any:
    """Import every command module and return the application."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            importlib.import_module(f"{__name__}.{module.name}")
    from prunelab.cli.terminal import app

    return app


def __getattr__(name: str) -> Any:
    """`prunelab.cli.app`, imported on first access."""
    if name == "app":
        return load_commands()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Entry point of the `prunelab` command."""
    code = _run()
    if code:
        sys.exit(code)


def _run() -> int:
    """Run the command in `sys.argv` and return its exit code."""
    interrupted: list[int] = []
    try:
        with _answering(_stop_at_once):
            application = load_commands()
            from prunelab.cli.terminal import quieten

            quieten()

        def interrupt(number: int, frame: FrameType | None) -> None:
            interrupted.append(number)
            raise KeyboardInterrupt

        with _answering(interrupt):
            code = _code_of(application)
        # Ctrl-C during an import or a callback can surface as another exception.
        return _say_stopped() if code == STOPPED or (code and interrupted) else code
    except KeyboardInterrupt:
        return _say_stopped()
    except BrokenPipeError:
        # Avoids a second error when the interpreter flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        if interrupted:
            return _say_stopped()
        raise


def _code_of(application: Any) -> int:
    """Run the application and return its exit code; a user error is printed on one line and gives code 2."""
    import typer

    from prunelab.cli.terminal import err
    from prunelab.errors import LONGEST, PrunelabError
    from prunelab.errors.text import one_line
    from prunelab.io.paths import path_fault, require_utf8
    from prunelab.io.terminal import labelled

    try:
        require_utf8(sys.argv)
        # Outside standalone mode, Typer returns the exit code of the command.
        return int(application(standalone_mode=False) or 0)
    except PrunelabError as error:
        err.print(labelled("error:", "red", error))
        return 2
    except OSError as error:
        reason = path_fault(error)
        if reason is None:
            raise
        err.print(labelled("error:", "red", reason))
        return 2
    except typer.Exit as stop:
        return int(stop.exit_code)
    except typer.Abort:
        return STOPPED
    except Exception as error:
        # Usage errors come from the copy of click inside Typer, which has no public exception class.
        if not hasattr(error, "format_message"):
            raise
        err.print(labelled("error:", "red", f"{one_line(error.format_message(), LONGEST)} (see --help)"))
        return 2


def _say_stopped() -> int:
    print(MESSAGE, file=sys.stderr, flush=True)
    return STOPPED


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    """Exit at once: during imports no file is open, and an exception could be swallowed or printed as a traceback."""
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(STOPPED)


@contextmanager
def _answering(handler: Any) -> Iterator[None]:
    """Handle Ctrl-C with `handler` inside the block; only in the main thread, and only if SIGINT is not ignored."""
    before = signal.getsignal(signal.SIGINT)
    can = threading.current_thread() is threading.main_thread() and before not in (signal.SIG_IGN, None)
    if can:  # a shell script ignores it for background jobs
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if can:
            signal.signal(signal.SIGINT, before)


__all__ = ["app", "main"]
