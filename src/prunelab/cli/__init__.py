"""The command line: parse, call, print. A command is a file here."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from prunelab.cli.terminal import app, err, escaped, quieten
from prunelab.errors import PrunelabError

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "__main__":
        importlib.import_module(f"{__name__}.{_module.name}")


def main() -> None:
    """Entry point of the command `prunelab`."""
    quieten()
    try:
        app(standalone_mode=False)
    except PrunelabError as error:
        err.print(f"[red]error:[/red] {escaped(str(error))}")
        sys.exit(2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        err.print("stopped; what was finished is kept")
        sys.exit(130)
    except Exception as error:
        # Typer raises click's usage errors; its copy of click has no public name to catch them by.
        if not hasattr(error, "format_message"):
            raise
        err.print(f"[red]error:[/red] {escaped(error.format_message())} (see --help)")
        sys.exit(2)


__all__ = ["app", "main"]
