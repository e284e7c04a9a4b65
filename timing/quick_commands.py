"""Commands that only print, list or read results: CPU seconds as multiples of importing typer, rich, pandas."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ratio, report

EARLIER = Path(__file__).parents[1] / "tests" / "earlier" / "run"
"""A small finished run."""
REFERENCE = "import typer, rich, pandas"
MOST = 1.5
CACHE = str(Path(tempfile.gettempdir()) / f"prunelab-quick-commands-{os.getuid()}")


def main() -> None:
    """Print a ratio a command; each command and the reference are processes of their own, run in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=EARLIER, help="a finished run's folder")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for arguments in (["--help"], ["list", "methods"], ["results", str(options.run)]):
        command = ["-m", "prunelab", *arguments]
        value, spread = ratio(
            lambda command=command: _python(*command),  # type: ignore[misc]
            lambda: _python("-c", REFERENCE),
            options.rounds,
            _children_seconds,
        )
        report(f"prunelab {' '.join(arguments[:2])}, times `{REFERENCE}`", value, spread, MOST)


def _python(*arguments: str) -> None:
    """Run a process; compiled modules are kept, as an installed package has them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": CACHE}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)


def _children_seconds() -> float:
    """CPU seconds of the processes that have ended: a wall clock would count the machine's other work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
