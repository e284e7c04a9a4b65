"""The command line: parse, call, print. A command is a file here."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from prunelab.cli.terminal import app, err, escaped, quieten
from prunelab.errors import PrunelabError
from prunelab.io.paths import path_fault, require_utf8

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "__main__":
        importlib.import_module(f"{__name__}.{_module.name}")


def main() -> None:
    """Entry point of the command `prunelab`."""
    quieten()
    code = 0
    try:
        require_utf8(sys.argv)
        code = app(standalone_mode=False) or 0  # Typer gives back what a command stopped with
    except PrunelabError as error:
        err.print(f"[red]error:[/red] {escaped(str(error))}")
        code = 2
    except typer.Exit as stop:
        code = stop.exit_code
    except OSError as error:
        reason = path_fault(error)
        if reason is None:
            raise
        err.print(f"[red]error:[/red] {escaped(reason)}")
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        # Typer raises click's usage errors; its copy of click has no public name to catch them by.
        if not hasattr(error, "format_message"):
            raise
        err.print(f"[red]error:[/red] {escaped(error.format_message())} (see --help)")
        code = 2
    if code == 130:
        err.print("stopped; what was finished is kept")
    if code:
        sys.exit(code)


__all__ = ["app", "main"]
