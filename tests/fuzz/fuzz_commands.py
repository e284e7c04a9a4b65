"""Runs a command in this process and tells what came of it."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

from prunelab import cli
from prunelab.errors import InvalidRequest


class ManyLines(Exception):
    """A command said more than one line of error, or ended with another code."""


def run_command(words: list[str]) -> object:
    """Run it; `InvalidRequest` where it refuses in one line, `ManyLines` where it ends otherwise."""
    sys.argv, out, err = ["prunelab", *words], io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    lines = [line for line in err.getvalue().splitlines() if not line.startswith(("warning:", "note:"))]
    if code not in (0, None) and (code != 2 or len(lines) != 1):
        raise ManyLines(f"code {code}: {lines[-1:]}")
    if code == 2:
        raise InvalidRequest(lines[0])
    return code
